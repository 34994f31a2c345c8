// The vector kernels, written once over `Vec`; included by one file per instruction set, inside its own namespace.
//
// Every stage is one product: rows of weights times "positions", vectors of neighbouring pixels,
//   y[m][p] = bias[m] + sum_t w[t][m] z[offset[t] + p],
// where t runs over channels, taps, or both. A padded, phase-split copy of a block of image rows makes a strided, dilated
// window such a sum with fixed offsets: position p = row * pitch + column, and no load needs a condition.

constexpr int L = Vec::L;
constexpr bool kPrefetch = false;
constexpr int kAhead = 8;  // terms between a load and its prefetch
constexpr int kSlack = 16 * L;  // floats past the last position that a full tile may read

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }
// A row length that is an odd number of cache lines, so that channels do not fall into the same cache sets.
int64_t odd_lines(int64_t n) { return (ceil_div(n, 16) | 1) * 16; }

// Weights on cache lines.
template <class E>
struct Aligned {
  using value_type = E;
  Aligned() = default;
  template <class O> Aligned(const Aligned<O>&) {}
  E* allocate(size_t n) {
    if (void* p = std::aligned_alloc(64, round_up(n * sizeof(E), 64))) return static_cast<E*>(p);
    throw std::bad_alloc();
  }
  void deallocate(E* p, size_t) { std::free(p); }
  template <class O> bool operator==(const Aligned<O>&) const { return true; }
  template <class O> bool operator!=(const Aligned<O>&) const { return false; }
};

Vec::T activate(const Activation& a, Vec::T v) {
  // Operand order as in the reference: a NaN passes through min and max.
  v = Vec::min(Vec::set1(a.max), Vec::max(Vec::set1(a.min), v));
  if (a.alpha != 1.0f) v = Vec::fma(Vec::set1(a.alpha), Vec::min(v, Vec::set1(0.0f)), Vec::max(v, Vec::set1(0.0f)));
  return v;
}

template <int MR, int NR, bool kAct>
void tile(const float* z, const int64_t* offset, int64_t terms, const float* w, const float* bias, float* const* y,
          int64_t at, int last, const Activation& act) {
  Vec::T acc[MR][NR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) acc[m][n] = Vec::set1(bias ? bias[m] : 0.0f);
  for (int64_t t = 0; t < terms; ++t, w += MR) {
    const float* p = z + offset[t];
    Vec::T b[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) b[n] = Vec::load(p + n * L);
    // Terms are apart by more than the hardware prefetchers follow; offsets carry kAhead extra entries.
    if (kPrefetch) {
      const float* ahead = z + offset[t + kAhead];
#pragma GCC unroll 8
      for (int n = 0; n < NR; n += 16 / L) __builtin_prefetch(ahead + n * L);
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      const Vec::T a = Vec::set1(w[m]);
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n) acc[m][n] = Vec::fma(a, b[n], acc[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) {
      const Vec::T v = kAct ? activate(act, acc[m][n]) : acc[m][n];
      float* to = y[m] + at + n * L;
      if (n < NR - 1 || last == L) Vec::store(to, v);
      else Vec::store(to, v, last);
    }
}

using Tile = void (*)(const float*, const int64_t*, int64_t, const float*, const float*, float* const*, int64_t, int,
                      const Activation&);
constexpr int kMaxRows = Vec::kRows, kMaxVectors = 7;

constexpr bool fits(int m, int n) { return m * n + n + 1 <= Vec::kRegisters && m * n <= Vec::kRegisters - 4; }
template <int M, int N, bool kAct>
constexpr Tile pick() {
  if constexpr (fits(M, N)) return tile<M, N, kAct>;
  else return nullptr;
}
template <bool kAct, size_t... I>
constexpr std::array<Tile, sizeof...(I)> table(std::index_sequence<I...>) {
  return {pick<int(I) / kMaxVectors + 1, int(I) % kMaxVectors + 1, kAct>()...};
}
constexpr auto kPlain = table<false>(std::make_index_sequence<kMaxRows * kMaxVectors>());
constexpr auto kActive = table<true>(std::make_index_sequence<kMaxRows * kMaxVectors>());

int most_vectors(int m) {
  int n = 1;
  while (n < kMaxVectors && fits(m, n + 1)) ++n;
  return n;
}

// Rows of weights cut into nearly equal blocks of at most kMaxRows, each stored [term][row].
struct Panel {
  struct Block { int64_t first, rows; size_t at; };
  std::vector<Block> blocks;
  std::vector<float> data;
  int64_t terms = 0;

  Panel() = default;
  Panel(int64_t rows, int64_t terms_, const std::function<float(int64_t row, int64_t term)>& value) : terms(terms_) {
    const int64_t count = ceil_div(rows, kMaxRows);
    for (int64_t i = 0, first = 0; i < count; ++i) {
      const int64_t n = (rows - first) / (count - i) + ((rows - first) % (count - i) ? 1 : 0);
      blocks.push_back({first, n, data.size()});
      for (int64_t t = 0; t < terms; ++t)
        for (int64_t m = 0; m < n; ++m) data.push_back(value(first + m, t));
      first += n;
    }
  }
};

// y[row][at .. at + count) for all rows of `panel`; `y(row)` is where a row goes.
template <class Out>
void multiply(const Panel& panel, const float* z, const int64_t* offset, int64_t count, const float* bias,
              const Activation* act, const Out& y) {
  const int64_t vectors = ceil_div(count, L);
  static const Activation none;
  const auto& table = act ? kActive : kPlain;
  // Outer loop over groups of positions that fit in the first cache level together with their terms, inner over weights.
  for (const auto& b : panel.blocks) {
    float* rows[kMaxRows];
    for (int m = 0; m < b.rows; ++m) rows[m] = y(b.first + m);
    const int64_t tiles = ceil_div(vectors, most_vectors(static_cast<int>(b.rows)));
    for (int64_t i = 0, v = 0; i < tiles; ++i) {
      const int64_t n = ceil_div(vectors - v, tiles - i);
      const int last = v + n == vectors ? static_cast<int>(count - (vectors - 1) * L) : L;
      table[(b.rows - 1) * kMaxVectors + n - 1](z + v * L, offset, panel.terms, panel.data.data() + b.at,
                                                bias ? bias + b.first : nullptr, rows, v * L, last, act ? *act : none);
      v += n;
    }
  }
}

// A block of rows of an image, padded and split by stride phase: [row phase][column phase][row][pitch].
struct Layout {
  int64_t sy, sx, ky, kx, dy, dx, top, left, width, out_width, pitch, rows, plane;

  Layout(const Window& w, int64_t in_width, int64_t strip)
      : sy(w.stride[1]), sx(w.stride[2]), ky(w.kernel[1]), kx(w.kernel[2]), dy(w.dilation[1]), dx(w.dilation[2]),
        top(w.begin[1]), left(w.begin[2]), width(in_width), out_width(w.output(2, in_width)) {
    pitch = out_width + (kx - 1) * dx / sx;
    rows = strip + (ky - 1) * dy / sy;
    plane = sy * sx * rows * pitch;
  }
  int64_t positions(int64_t strip) const { return (strip - 1) * pitch + out_width; }
  // Input rows [first, last) that output rows [y, y + count) read, before clipping to the image.
  int64_t first_row(int64_t y) const { return y * sy - top; }
  int64_t last_row(int64_t y, int64_t count) const { return (y + count - 1) * sy - top + (ky - 1) * dy + 1; }
  std::vector<int64_t> offsets(int64_t channels) const {
    std::vector<int64_t> o;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < ky; ++i)
        for (int64_t j = 0; j < kx; ++j)
          o.push_back(c * plane + ((i * dy % sy * sx + j * dx % sx) * rows + i * dy / sy) * pitch + j * dx / sx);
    o.resize(o.size() + kAhead);
    return o;
  }
  // Writes input row `r` (counted from the block's first) from `padded`, which holds `left` zeros, the row, and zeros.
  void put(float* z, int64_t r, const float* padded) const {
    float* to = z + (r % sy * sx * rows + r / sy) * pitch;
    if (sx == 1) {
      copy(to, padded, pitch);
    } else if (sx == 2) {
      float* odd = to + rows * pitch;
      int64_t i = 0;
      for (; i + L <= pitch; i += L) {
        const Vec::T a = Vec::load(padded + 2 * i), b = Vec::load(padded + 2 * i + L);
        Vec::store(to + i, Vec::even(a, b));
        Vec::store(odd + i, Vec::odd(a, b));
      }
      if (i < pitch) {
        const Vec::T a = Vec::load(padded + 2 * i), b = Vec::load(padded + 2 * i + L);
        Vec::store(to + i, Vec::even(a, b), static_cast<int>(pitch - i));
        Vec::store(odd + i, Vec::odd(a, b), static_cast<int>(pitch - i));
      }
    } else {
      for (int64_t ph = 0; ph < sx; ++ph)
        for (int64_t i = 0; i < pitch; ++i) to[ph * rows * pitch + i] = padded[i * sx + ph];
    }
  }
  // As `put` for column stride 1, where the padding of `z` is zero already.
  void put_inside(float* z, int64_t r, const float* row) const {
    const int64_t n = std::min(width, pitch - left);
    if (n > 0) copy(z + (r % sy * rows + r / sy) * pitch + left, row, n);
  }
  void clear(float* z, int64_t r) const {
    for (int64_t ph = 0; ph < sx; ++ph) std::fill_n(z + ((r % sy * sx + ph) * rows + r / sy) * pitch, pitch, 0.0f);
  }
  int64_t padded_size() const { return std::max(left + width, pitch * sx) + kSlack; }
  static void copy(float* to, const float* from, int64_t n) {
    int64_t i = 0;
    for (; i + L <= n; i += L) Vec::store(to + i, Vec::load(from + i));
    if (i < n) Vec::store(to + i, Vec::load(from + i, static_cast<int>(n - i)), static_cast<int>(n - i));
  }
};

// Scratch memory that survives a run: as many buffers as ran at once, so memory stops growing.
class Scratch {
 public:
  struct Free { void operator()(float* p) const { std::free(p); } };
  struct Buffer { std::unique_ptr<float, Free> data; size_t size = 0; };
  class Lease {
   public:
    Lease(Scratch& s, size_t size) : s_(s) {
      { std::lock_guard<std::mutex> lock(s.mutex_);
        if (!s.idle_.empty()) { b_ = std::move(s.idle_.back()); s.idle_.pop_back(); } }
      if (b_.size < size) {
        b_.data.reset(static_cast<float*>(std::aligned_alloc(64, round_up(size * sizeof(float), 64))));
        if (!b_.data) throw std::bad_alloc();
        b_.size = size;
      }
    }
    ~Lease() { std::lock_guard<std::mutex> lock(s_.mutex_); s_.idle_.push_back(std::move(b_)); }
    float* data() { return b_.data.get(); }
   private:
    Scratch& s_;
    Buffer b_;
  };
 private:
  std::mutex mutex_;
  std::vector<Buffer> idle_;
};

// The session does not tell its number of threads. So the first runs, and now and then a later one, make as many tasks as the
// machine has threads and count who takes part; the others make tasks for the most that were ever seen.
class Threads {
 public:
  struct Plan { int count; bool explores; };
  Plan plan() {
    static const int most = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 64u));
    const unsigned run = runs_++;
    return run < 16 || run % 16 == 0 ? Plan{most, most > 1} : Plan{seen_.load(), false};
  }
  void run(const Plan& plan, const ParallelFor& parallel, size_t tasks, const std::function<void(size_t)>& body) {
    if (!plan.explores) return parallel(tasks, body);
    std::mutex mutex;
    std::set<std::thread::id> ids;
    parallel(tasks, [&](size_t i) {
      { std::lock_guard<std::mutex> lock(mutex); ids.insert(std::this_thread::get_id()); }
      body(i);
    });
    for (int old = seen_, now = static_cast<int>(ids.size()); old < now && !seen_.compare_exchange_weak(old, now);) {}
  }
 private:
  std::atomic<unsigned> runs_{0};
  std::atomic<int> seen_{1};
};

// Output rows per task: as many as `most`, in equal tasks, at least one task per thread.
int64_t strip_rows(int64_t rows, int64_t most, int64_t others, int threads) {
  most = std::max<int64_t>(1, std::min(most, rows));
  int64_t tasks = ceil_div(rows, most);
  if (threads > 1) {
    tasks = std::max(tasks, std::min(rows, ceil_div(threads, others)));
    if (others % threads) tasks = std::min(rows, round_up(tasks, threads));
  }
  return ceil_div(rows, tasks);
}

class MonochromaticKernel : public Kernel {
 public:
  explicit MonochromaticKernel(const Monochromatic& d) : d_(d), position_(d.filters), bias_(d.bias) {
    const int64_t per = d.filters / d.colours, taps = d.window.taps();
    for (int64_t f = 0; f < d.filters; ++f) position_[d.order[f]] = f;
    for (int64_t c = 0; c < d.colours; ++c)
      mixers_.emplace_back(1, d.channels, [&](int64_t, int64_t t) { return d.colour[c * d.channels + t]; });
    for (int64_t c = 0; c < d.colours; ++c)
      panels_.emplace_back(per, taps, [&](int64_t m, int64_t t) { return d.filter[(c * per + m) * taps + t]; });
  }
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const int64_t images = in.batch * in.size[0], ih = in.size[1], iw = in.size[2];
    if (in.size[0] != 1) throw std::runtime_error("three spatial axes");
    const int64_t oh = d_.window.output(1, ih), ow = d_.window.output(2, iw), per = d_.filters / d_.colours;
    const Layout one(d_.window, iw, 1);
    const int64_t row_floats = one.sy * one.sx * one.pitch;
    const int64_t most = std::max<int64_t>(4, 6144 / row_floats - one.rows + 1);
    const auto plan = threads_.plan();
    const int64_t strip = strip_rows(oh, std::min<int64_t>(most, 16), images, plan.count), strips = ceil_div(oh, strip);
    const Layout lay(d_.window, iw, strip);
    const auto offset = lay.offsets(1);
    // Few channels are padded and split by phase before they are mixed, many colours would repeat it; else the colours are.
    const bool early = d_.channels <= d_.colours;
    const int64_t xp = early ? odd_lines(lay.plane + kSlack) : 0, zs = odd_lines(lay.plane + kSlack);
    std::vector<int64_t> x_offset(d_.channels + kAhead);
    for (int64_t c = 0; c < d_.channels; ++c) x_offset[c] = c * xp;
    const size_t need = zs + d_.channels * xp + lay.padded_size();
    threads_.run(plan, parallel, images * strips, [&](size_t task) {
      const int64_t n = task / strips, y0 = task % strips * strip, count = std::min(strip, oh - y0);
      Scratch::Lease lease(scratch_, need);
      float* z = lease.data();
      float *xs = z + zs, *padded = xs + d_.channels * xp;
      std::fill_n(padded, lay.padded_size(), 0.0f);
      const float* image = x + n * d_.channels * ih * iw;
      auto rows = [&](float* to, const auto& fill) {  // fill(r) puts row r of the image into `padded`
        for (int64_t r = lay.first_row(y0), i = 0; r < lay.last_row(y0, count); ++r, ++i) {
          if (r < 0 || r >= ih) { lay.clear(to, i); continue; }
          fill(r);
          lay.put(to, i, padded);
        }
      };
      if (early)
        for (int64_t c = 0; c < d_.channels; ++c)
          rows(xs + c * xp, [&](int64_t r) { Layout::copy(padded + lay.left, image + (c * ih + r) * iw, iw); });
      for (int64_t c = 0; c < d_.colours; ++c) {
        const float* w = d_.colour.data() + c * d_.channels;
        if (early) multiply(mixers_[c], xs, x_offset.data(), lay.plane, nullptr, nullptr, [&](int64_t) { return z; });
        else rows(z, [&](int64_t r) { mix(image + r * iw, ih * iw, w, iw, padded + lay.left); });
        for (int64_t r = 0; r < count; ++r)
          multiply(panels_[c], z + r * lay.pitch, offset.data(), ow, bias_.data() + c * per, &d_.activation,
                   [&](int64_t m) { return y + ((n * d_.filters + position_[c * per + m]) * oh + y0 + r) * ow; });
      }
    });
  }

 private:
  // to[p] = sum_i w[i] from[i * plane + p]
  void mix(const float* from, int64_t plane, const float* w, int64_t count, float* to) const {
    for (int64_t p = 0; p < count; p += L) {
      const int n = static_cast<int>(std::min<int64_t>(L, count - p));
      Vec::T sum = Vec::set1(0.0f);
      for (int64_t i = 0; i < d_.channels; ++i) sum = Vec::fma(Vec::set1(w[i]), Vec::load(from + i * plane + p, n), sum);
      Vec::store(to + p, sum, n);
    }
  }
  Monochromatic d_;
  std::vector<int64_t> position_;
  std::vector<float> bias_;
  std::vector<Panel> mixers_, panels_;
  Scratch scratch_;
  Threads threads_;
};

class Tucker2Kernel : public Kernel {
 public:
  explicit Tucker2Kernel(const LowRank& d) : d_(d), position_(d.filters) {
    const int64_t G = d.input_groups, H = d.output_groups, K1 = d.rank1, K2 = d.rank2, taps = d.window.taps();
    const int64_t per_in = d.channels / G, per_out = d.filters / H;
    for (int64_t f = 0; f < d.filters; ++f) position_[d.output_order[f]] = f;
    for (int64_t b = 0; b < G * H; ++b) {
      a_.emplace_back(K1, per_in, [&](int64_t m, int64_t t) { return d.a[(b * K1 + m) * per_in + t]; });
      core_.emplace_back(K2, K1 * taps, [&](int64_t m, int64_t t) { return d.core[(b * K2 + m) * K1 * taps + t]; });
    }
    for (int64_t h = 0; h < H; ++h)
      b_.emplace_back(per_out, G * K2, [&](int64_t m, int64_t t) { return d.b[(h * per_out + m) * G * K2 + t]; });
    d_.a.clear(); d_.core.clear(); d_.b.clear();
  }
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    if (in.size[0] != 1) throw std::runtime_error("three spatial axes");
    const int64_t G = d_.input_groups, H = d_.output_groups, K1 = d_.rank1, K2 = d_.rank2, C = d_.channels;
    const int64_t per_in = C / G, per_out = d_.filters / H;
    const int64_t ih = in.size[1], iw = in.size[2], oh = d_.window.output(1, ih), ow = d_.window.output(2, iw);
    // A task keeps X and Z of one block and T of one output group. Smaller tasks read the weights again and compute the rows
    // they share twice; larger ones leave the second cache level. Measured best: 1.6 MB, more where the weights are larger still.
    const int64_t weights = G * H * (K1 * per_in + K2 * K1 * d_.window.taps()) + d_.filters * G * K2;
    const int64_t budget = (weights > 400 * 1024 ? 900 : 400) * 1024;
    const int64_t row = ow * G * K2 + d_.window.stride[1] * iw * (per_in + K1);
    const auto plan = threads_.plan();
    const int64_t strip = strip_rows(oh, std::max<int64_t>(4, budget / row), in.batch * H, plan.count), strips = ceil_div(oh, strip);
    const Layout lay(d_.window, iw, strip);
    const int64_t in_rows = (strip - 1) * lay.sy + (lay.ky - 1) * lay.dy + 1;
    const int64_t xp = odd_lines(in_rows * iw), tp = odd_lines(strip * ow), fp = round_up(lay.positions(strip), L) + L;
    std::vector<int64_t> x_offset(per_in + kAhead), t_offset(G * K2 + kAhead);
    for (int64_t c = 0; c < per_in; ++c) x_offset[c] = c * xp;
    for (int64_t k = 0; k < G * K2; ++k) t_offset[k] = k * tp;
    const auto offset = lay.offsets(K1);
    // Every buffer starts on a cache line.
    const size_t xs = round_up(per_in * xp + kSlack, 16), zs = round_up(K1 * lay.plane + kSlack, 16),
                 ts = round_up(G * K2 * tp + kSlack, 16), us = round_up(std::max(K1 * xp, K2 * fp) + kSlack + lay.padded_size(), 16),
                 ps = lay.padded_size();
    threads_.run(plan, parallel, in.batch * H * strips, [&](size_t task) {
      const int64_t h = task % H, s = task / H % strips, n = task / H / strips;
      const int64_t y0 = s * strip, count = std::min(strip, oh - y0);
      const int64_t r0 = std::max<int64_t>(0, lay.first_row(y0)), r1 = std::min(ih, lay.last_row(y0, count));
      const int64_t px = std::max<int64_t>(0, r1 - r0) * iw;
      Scratch::Lease lease(scratch_, xs + zs + ts + us + ps);
      float *xb = lease.data(), *z = xb + xs, *t = z + zs, *u = t + ts, *padded = u + us;
      std::fill_n(padded, ps, 0.0f);
      const int64_t first = lay.first_row(y0), last = lay.last_row(y0, count);
      const bool direct = lay.sx == 1;  // then only the image's columns are written, the padding stays zero
      // Without column padding a row is split where it stands; what lies behind it reaches only positions that are dropped.
      const bool bare = d_.window.begin[2] == 0 && d_.window.end[2] == 0;
      if (direct) {
        std::fill_n(z, K1 * lay.plane, 0.0f);
      } else {
        for (int64_t k = 0; k < K1; ++k)
          for (int64_t r = first; r < last; ++r)
            if (r < 0 || r >= ih) lay.clear(z + k * lay.plane, r - first);
      }
      for (int64_t g = 0; g < G; ++g) {
        const int64_t block = g * H + h;
        for (int64_t c = 0; c < per_in; ++c)
          Layout::copy(xb + c * xp, x + ((n * C + d_.input_order[g * per_in + c]) * ih + r0) * iw, px);
        if (px) multiply(a_[block], xb, x_offset.data(), px, nullptr, nullptr, [&](int64_t m) { return u + m * xp; });
        for (int64_t k = 0; k < K1; ++k)
          for (int64_t r = r0; r < r1; ++r) {
            const float* from = u + k * xp + (r - r0) * iw;
            if (direct) {
              lay.put_inside(z + k * lay.plane, r - first, from);
              continue;
            }
            if (!bare) Layout::copy(padded + lay.left, from, iw);
            lay.put(z + k * lay.plane, r - first, bare ? from : padded);
          }
        multiply(core_[block], z, offset.data(), lay.positions(count), nullptr, nullptr, [&](int64_t m) { return u + m * fp; });
        for (int64_t k = 0; k < K2; ++k)
          for (int64_t r = 0; r < count; ++r) Layout::copy(t + (g * K2 + k) * tp + r * ow, u + k * fp + r * lay.pitch, ow);
      }
      multiply(b_[h], t, t_offset.data(), count * ow, d_.bias.data() + h * per_out, &d_.activation,
               [&](int64_t m) { return y + ((n * d_.filters + position_[h * per_out + m]) * oh + y0) * ow; });
    });
  }

 private:
  LowRank d_;
  std::vector<int64_t> position_;
  std::vector<Panel> a_, core_, b_;
  Scratch scratch_;
  Threads threads_;
};

class LrnKernel : public Kernel {
 public:
  explicit LrnKernel(const Lrn& d) : d_(d) {}
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const int64_t plane = in.size[0] * in.size[1] * in.size[2], C = in.channels;
    const int64_t blocks = ceil_div(plane, L), chunk = std::min<int64_t>(blocks, 64), chunks = ceil_div(blocks, chunk);
    const int64_t before = (d_.size - 1) / 2, after = d_.size - 1 - before;
    parallel(in.batch * chunks, [&](size_t task) {
      const int64_t n = task / chunks, b0 = task % chunks * chunk, b1 = std::min(blocks, b0 + chunk);
      // Channels outermost: every plane is read and written in runs of `chunk` vectors; the window is summed afresh,
      // which keeps the rounding of the reference.
      for (int64_t c = 0; c < C; ++c) {
        const int64_t from = std::max<int64_t>(0, c - before), to = std::min(C - 1, c + after);
        for (int64_t b = b0; b < b1; ++b) {
          const int64_t p = b * L;
          const int m = static_cast<int>(std::min<int64_t>(L, plane - p));
          const float* at = x + n * C * plane + p;
          Vec::T sum = Vec::set1(0.0f);
          for (int64_t k = from; k <= to; ++k) {
            const Vec::T v = Vec::load(at + k * plane, m);
            sum = Vec::fma(v, v, sum);
          }
          const Vec::T base = Vec::fma(Vec::set1(d_.alpha / static_cast<float>(d_.size)), sum, Vec::set1(d_.bias));
          const Vec::T v = Vec::load(at + c * plane, m);
          Vec::store(y + (n * C + c) * plane + p, power(v, base), m);
        }
      }
    });
  }

 private:
  // v / base^beta; 0.75, 0.5 and 1 by square roots, any other exponent by the library's pow.
  Vec::T power(Vec::T v, Vec::T base) const {
    if (d_.beta == 0.75f) { const Vec::T r = Vec::sqrt(base); return Vec::div(v, Vec::mul(r, Vec::sqrt(r))); }
    if (d_.beta == 0.5f) return Vec::div(v, Vec::sqrt(base));
    if (d_.beta == 1.0f) return Vec::div(v, base);
    alignas(64) float b[L];
    Vec::store(b, base);
    for (float& e : b) e = std::pow(e, -d_.beta);
    return Vec::mul(v, Vec::load(b));
  }
  Lrn d_;
};

#include "cp.inl"

std::unique_ptr<Kernel> make(const Monochromatic& d) { return std::make_unique<MonochromaticKernel>(d); }
std::unique_ptr<Kernel> make(const LowRank& d) {
  if (d.depthwise) return std::make_unique<CpKernel>(d);
  return std::make_unique<Tucker2Kernel>(d);
}
std::unique_ptr<Kernel> make(const Lrn& d) { return std::make_unique<LrnKernel>(d); }
