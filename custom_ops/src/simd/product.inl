// y[m][p] = bias[m] + sum_t w[t][m] z[offset[t] + p], pixels in lanes: the register-tiled product
// of all stages.
Vec::T activate(const Activation& a, Vec::T v) {
  // Operand order as in the reference: a NaN passes through min and max.
  v = Vec::min(Vec::set1(a.max), Vec::max(Vec::set1(a.min), v));
  const Vec::T zero = Vec::set1(0.0f);
  if (a.alpha != 1.0f) v = Vec::fma(Vec::set1(a.alpha), Vec::min(zero, v), Vec::max(zero, v));
  return v;
}

template <int MR, int NR, bool kAct>
void tile(const float* z, const int64_t* offset, int64_t terms, const float* w, const float* bias,
          float* const* y, int64_t at, int last, const Activation& act) {
  // Outputs are mostly far from the first cache level: their lines are asked for while the sums
  // grow. Long sums would push them out again.
  if (kAct && terms < 256)
    for (int m = 0; m < MR; ++m)
      for (int n = 0; n < NR; n += 16 / L) __builtin_prefetch(y[m] + at + n * L, 1);
  Vec::T acc[MR][NR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) acc[m][n] = Vec::set1(bias ? bias[m] : 0.0f);
  for (int64_t t = 0; t < terms; ++t, w += MR) {
    const float* p = z + offset[t];
    __builtin_prefetch(w + terms * MR, 0,
                       2);  // the next block's: weights are read once a run, from far away
    Vec::T b[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) b[n] = Vec::load(p + n * L);
    // Terms are apart by more than the hardware prefetchers follow; offsets carry kAhead extra
    // entries.
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
      if (n < NR - 1 || last == L)
        Vec::store(to, v);
      else
        Vec::store(to, v, last);
    }
}

using Tile = void (*)(const float*, const int64_t*, int64_t, const float*, const float*,
                      float* const*, int64_t, int, const Activation&);
constexpr int kMaxRows = Vec::kRows, kMaxVectors = 7;

constexpr bool fits(int m, int n) {
  return m * n + n + 1 <= Vec::kRegisters && m * n <= Vec::kRegisters - 4;
}
template <int M, int N, bool kAct>
constexpr Tile pick() {
  if constexpr (fits(M, N))
    return tile<M, N, kAct>;
  else
    return nullptr;
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
  struct Block {
    int64_t first, rows;
    size_t at;
  };
  std::vector<Block> blocks;
  std::vector<float> data;
  int64_t terms = 0;

  Panel() = default;
  Panel(int64_t rows, int64_t terms_, const std::function<float(int64_t row, int64_t term)>& value)
      : terms(terms_) {
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

// Lines that later work will touch, asked for a few at a time between tiles.
class Ahead {
 public:
  // `planes` runs of `length` floats, `pitch` floats apart; in the order of the calls, two at most.
  void add(const float* base, int64_t planes, int64_t pitch, int64_t length) {
    if (planes > 0 && length > 0) parts_[count_++] = {base, planes, pitch, length};
  }
  void step(int64_t lines) {
    for (; lines > 0 && now_ < count_; --lines) {
      Part& p = parts_[now_];
      __builtin_prefetch(p.base + done_, 0, 2);  // to the second cache level
      if ((done_ += 16) < p.length) continue;
      done_ = 0;
      p.base += p.pitch;
      if (--p.planes == 0) ++now_;
    }
  }

 private:
  struct Part {
    const float* base;
    int64_t planes, pitch, length;
  };
  std::array<Part, 2> parts_{};
  int count_ = 0, now_ = 0;
  int64_t done_ = 0;
};

// y[row][p + i * y_step] for positions p < count and runs i < runs, of z + i * z_step; `y(row)` is
// where a row goes.
template <class Out>
void multiply(const Panel& panel, const float* z, const int64_t* offset, int64_t count,
              const float* bias, const Activation* act, const Out& y, Ahead* ahead = nullptr,
              int64_t runs = 1, int64_t z_step = 0, int64_t y_step = 0) {
  const int64_t vectors = ceil_div(count, L);
  static const Activation none;
  const auto& table = act ? kActive : kPlain;
  for (const auto& b : panel.blocks) {
    float* rows[kMaxRows];
    for (int m = 0; m < b.rows; ++m) rows[m] = y(b.first + m);
    const int64_t tiles = ceil_div(vectors, most_vectors(static_cast<int>(b.rows)));
    for (int64_t run = 0; run < runs; ++run)
      for (int64_t i = 0, v = 0; i < tiles; ++i) {
        const int64_t n = ceil_div(vectors - v, tiles - i);
        const int last = v + n == vectors ? static_cast<int>(count - (vectors - 1) * L) : L;
        table[(b.rows - 1) * kMaxVectors + n - 1](
            z + run * z_step + v * L, offset, panel.terms, panel.data.data() + b.at,
            bias ? bias + b.first : nullptr, rows, run * y_step + v * L, last, act ? *act : none);
        v += n;
        if (ahead)
          ahead->step(
              panel.terms);  // as many lines as terms: outputs and inputs of a layer are fewer
      }
  }
}
