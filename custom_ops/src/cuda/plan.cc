#include "plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace onnx_lowrank::cuda {
namespace {

constexpr int64_t kMaxIndex = (int64_t{1} << 31) - 1;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int narrow(int64_t value, const char* what) {
  if (value > kMaxIndex)
    throw std::runtime_error(std::string(what) + " is " + std::to_string(value) +
                             ", more than the GPU kernels index");
  return static_cast<int>(value);
}

Divisor divisor(int64_t d) {
  return {static_cast<uint32_t>(d),
          d == 1 ? 0 : static_cast<uint32_t>(((int64_t{1} << 32) + d - 1) / d)};
}

DeviceActivation activation(const Activation& a) { return {a.min, a.max, a.alpha}; }

DeviceWindow window(const Window& given, const Image& in) {
  const Window w = given.on(in.size);
  DeviceWindow out;
  for (int i = 0; i < 3; ++i) {
    out.kernel[i] = narrow(w.kernel[i], "the kernel"),
    out.stride[i] = narrow(w.stride[i], "the stride");
    out.dilation[i] = narrow(w.dilation[i], "the dilation"),
    out.begin[i] = narrow(w.begin[i], "the pad");
    out.in[i] = narrow(in.size[i], "the size of X"),
    out.out[i] = narrow(w.output(i, in.size[i]), "the size of Y");
    // Tiles hang over the edge of Y, by 256 columns at most.
    narrow((w.kernel[i] - 1) * w.dilation[i] + w.stride[i] * (w.output(i, in.size[i]) + 256),
           "the reach of the window");
  }
  narrow(in.size[1] * in.size[2], "the plane of X");
  narrow(static_cast<int64_t>(out.out[1]) * out.out[2], "the plane of Y");
  return out;
}

size_t reserve(std::vector<float>& v, size_t count) {  // 16 bytes of alignment, for loads of four
  const size_t at = (v.size() + 3) / 4 * 4;
  v.resize(at + count);
  return at;
}

std::vector<int> inverse(const std::vector<int64_t>& order) {
  std::vector<int> out(order.size());
  for (size_t i = 0; i < order.size(); ++i) out[order[i]] = static_cast<int>(i);
  return out;
}

// Multiplicity of the busiest bank when a warp reads its pixels' words; `rows` rows of `width`
// pixels, `step` words apart.
int conflicts(int width, int step) {
  std::array<int, kWarp> used{};
  for (int lane = 0; lane < kWarp; ++lane) ++used[(lane / width * step + lane % width) % kWarp];
  return *std::max_element(used.begin(), used.end());
}

// The least padding of a row that has the fewest bank conflicts.
int padded_pitch(int words, int width, int stride) {
  int best = words;
  stride %= kWarp;  // the number of banks
  for (int pitch = words; pitch < words + 16; ++pitch)
    if (conflicts(width, pitch * stride) < conflicts(width, best * stride)) best = pitch;
  return best;
}

// Rows of Q that waste least, the larger of two equal ones.
int best_rows(int64_t rows, std::initializer_list<int> choices) {
  int best = 0;
  for (int q : choices)
    if (!best || divide_up(rows, q) * q < divide_up(rows, best) * best ||
        (divide_up(rows, q) * q == divide_up(rows, best) * best && q > best))
      best = q;
  return best;
}

}  // namespace

MonoPlan::MonoPlan(const Monochromatic& d) : d_(d) {
  const int64_t per = d.filters / d.colours, taps = d.window.taps();
  q_ = best_rows(per, {8, 12, 16});
  chunks_ = narrow(divide_up(per, q_), "the filters of a colour");
  auto& floats = packed_.floats;
  floats = d.colour;
  filter_ = reserve(floats, d.colours * chunks_ * taps * q_);
  bias_ = reserve(floats, d.colours * chunks_ * q_);
  for (int64_t s = 0; s < d.filters; ++s) {
    const int64_t part = s / per * chunks_ + s % per / q_, q = s % per % q_;
    for (int64_t t = 0; t < taps; ++t)
      floats[filter_ + (part * taps + t) * q_ + q] = d.filter[s * taps + t];
    floats[bias_ + part * q_ + q] = d.bias[s];
  }
  packed_.ints = inverse(d.order);
}

Launch MonoPlan::plan(const Image& in, const Device& device, const float* floats, const int* ints,
                      MonoParams* params) const {
  const DeviceWindow w = window(d_.window, in);
  MonoParams p{};
  p.window = w;
  p.activation = activation(d_.activation);
  p.channels = narrow(d_.channels, "channels"), p.filters = narrow(d_.filters, "filters"),
  p.colours = narrow(d_.colours, "colours");
  p.per_colour = p.filters / p.colours;
  p.chunks = chunks_;
  p.stride_divisor = divisor(w.stride[2]);
  p.colour = floats, p.filter = floats + filter_, p.bias = floats + bias_, p.target = ints;
  const int64_t taps = static_cast<int64_t>(w.kernel[1]) * w.kernel[2];
  double cheapest = INFINITY;
  Launch launch{};
  for (int pixels : {1, 2, 4, 8}) {
    if (pixels == 8 && q_ != 8) continue;
    const int64_t run = pixels * kMonoThreads;
    for (int64_t strips = 1; strips <= w.out[2];
         strips = strips < 4 ? strips + 1 : strips * 3 / 2) {
      const int64_t strip = divide_up(w.out[2], strips);
      const int64_t columns = (strip - 1) * w.stride[2] + (w.kernel[2] - 1) * w.dilation[2] + 1;
      const int64_t phase = divide_up(columns, w.stride[2]), pitch = phase * w.stride[2];
      const int64_t real_strips = divide_up(w.out[2], strip);  // rounding up can leave fewer
      const int64_t narrowest = w.out[2] - (real_strips - 1) * strip;
      const int64_t touched = std::min<int64_t>((run - 2) / narrowest + 2,
                                                w.out[1]);  // output rows that a run can touch
      const int64_t rows = (touched - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
      if (columns >= 1 << 16 || rows >= 1 << 16)
        continue;  // divided by one multiplication; and no product of both overflows
      const int64_t words = divide_up(rows * pitch, 4) * 4, bytes = 4 * (words + taps * q_);
      const int64_t runs = divide_up(strip * w.out[1], run);
      const int64_t blocks = in.batch * w.out[0] * real_strips * runs * p.colours * p.chunks;
      if (bytes > device.shared_block || blocks > kMaxIndex) continue;
      // Instructions of a thread: staging Z, the taps, the rest; blocks share a multiprocessor, and
      // come in whole waves.
      const int64_t together = std::min<int64_t>(4, device.shared_multiprocessor / (bytes + 1024));
      const double waves = static_cast<double>(divide_up(
                               blocks, device.multiprocessors * std::max<int64_t>(1, together))) *
                           std::max<int64_t>(1, together);
      const double staging =
          rows * divide_up(columns, kWarp) / (kMonoThreads / kWarp) * (12.0 + 3.0 * p.channels);
      const double work =
          w.kernel[0] * (staging + taps * (pixels * q_ + 2 * pixels + q_ / 2.0 + 4)) +
          pixels * (q_ + 20) * 2 + 200;
      const double cost = waves * work * (together < 2 ? 1.5 : 1.0);
      if (cost >= cheapest) continue;
      cheapest = cost;
      p.strips = static_cast<int>(real_strips), p.strip = static_cast<int>(strip),
      p.runs = static_cast<int>(runs);
      p.columns = static_cast<int>(columns), p.phase_pitch = static_cast<int>(phase);
      p.row_pitch = static_cast<int>(pitch), p.plane_words = static_cast<int>(words);
      launch = {static_cast<int>(blocks), kMonoThreads, static_cast<int>(bytes), pixels, q_};
    }
  }
  if (cheapest == INFINITY)
    throw std::runtime_error("no part of the layer fits the " +
                             std::to_string(device.shared_block) +
                             " bytes of a block's shared memory, or there are too many blocks");
  *params = p;
  return launch;
}

LowRankPlan::LowRankPlan(const LowRank& d) : d_(d) {
  const int64_t G = d.input_groups, H = d.output_groups, K1 = d.rank1, K2 = d.rank2,
                C = d.channels / G, F = d.filters / H;
  const int64_t taps = d.window.taps(), depth = d.window.kernel[0], flat = taps / depth;
  q_ = best_rows(std::min(K1, K2), {8, 16});
  const int64_t u1 = divide_up(K1, q_), u2 = divide_up(K2, q_), u3 = divide_up(F, q_);
  units1_ = narrow(u1, "the rank"), units2_ = narrow(u2, "the rank"),
  units3_ = narrow(u3, "filters");
  auto& v = packed_.floats;
  reserve(v, H * G * u1 * C * q_);
  core_ = reserve(v, d.depthwise ? H * G * K1 * taps : H * G * u2 * K1 * taps * q_);
  b_ = reserve(v, H * u3 * G * K2 * q_);
  bias_ = reserve(v, H * u3 * q_);
  for (int64_t h = 0; h < H; ++h)
    for (int64_t g = 0; g < G; ++g) {
      const int64_t from = g * H + h, to = h * G + g;  // blocks come input group by input group,
                                                       // and are used output group by output group
      for (int64_t k = 0; k < K1; ++k)
        for (int64_t c = 0; c < C; ++c)
          v[((to * u1 + k / q_) * C + c) * q_ + k % q_] = d.a[(from * K1 + k) * C + c];
      for (int64_t k = 0; k < K2; ++k) {
        if (d.depthwise) {
          std::copy_n(d.core.begin() + (from * K1 + k) * taps, taps,
                      v.begin() + core_ + (to * K1 + k) * taps);
        } else {
          for (int64_t k0 = 0; k0 < depth; ++k0)
            for (int64_t i = 0; i < K1; ++i)
              for (int64_t t = 0; t < flat; ++t)
                v[core_ + ((((to * u2 + k / q_) * depth + k0) * K1 + i) * flat + t) * q_ + k % q_] =
                    d.core[((from * K2 + k) * K1 + i) * taps + k0 * flat + t];
        }
      }
    }
  for (int64_t s = 0; s < d.filters; ++s) {
    const int64_t h = s / F, unit = h * u3 + s % F / q_, q = s % F % q_;
    for (int64_t k = 0; k < G * K2; ++k) v[b_ + (unit * G * K2 + k) * q_ + q] = d.b[s * G * K2 + k];
    v[bias_ + unit * q_ + q] = d.bias[s];
  }
  packed_.ints.assign(d.input_order.begin(), d.input_order.end());
  target_ = packed_.ints.size();
  const auto target = inverse(d.output_order);
  packed_.ints.insert(packed_.ints.end(), target.begin(), target.end());
}

Launch LowRankPlan::plan(const Image& in, const Device& device, const float* floats,
                         const int* ints, LowRankParams* params) const {
  const DeviceWindow w = window(d_.window, in);
  LowRankParams p{};
  p.window = w;
  p.activation = activation(d_.activation);
  p.channels = narrow(d_.channels, "channels"), p.filters = narrow(d_.filters, "filters");
  p.input_groups = narrow(d_.input_groups, "groups"),
  p.output_groups = narrow(d_.output_groups, "groups");
  p.rank1 = narrow(d_.rank1, "the rank"), p.rank2 = narrow(d_.rank2, "the rank");
  p.units1 = units1_, p.units2 = units2_, p.units3 = units3_;
  p.a = floats, p.core = floats + core_, p.b = floats + b_, p.bias = floats + bias_;
  p.input = ints, p.target = ints + target_;
  int kernel[2], dilation[2];
  for (int i = 0; i < 2; ++i) {
    const bool point = w.kernel[i + 1] == 1;
    p.step[i] = point ? w.stride[i + 1] : 1;
    p.stride[i] = point ? 1 : w.stride[i + 1];
    kernel[i] = w.kernel[i + 1], dilation[i] = w.dilation[i + 1];
  }
  p.stride_divisor = divisor(p.stride[1]);
  const int64_t C = p.channels / p.input_groups,
                terms = static_cast<int64_t>(p.input_groups) * p.rank2;
  const int64_t taps = static_cast<int64_t>(kernel[0]) * kernel[1];
  const int rows[] = {16, 8, 4, 2, 1}, columns[] = {256, 128, 64, 32, 16, 8, 4};
  double cheapest = INFINITY;
  int64_t least = INT64_MAX;
  Launch launch{};
  for (int pixels : {1, 2, 4})
    for (int tile0 : rows)
      for (int tile1 : columns) {
        // Tiles of a whole small image waste nothing; one that is mostly outside is some smaller
        // tile.
        const int t0 = std::min(tile0, w.out[1]), t1 = std::min(tile1, w.out[2]);
        const int64_t area = static_cast<int64_t>(t0) * t1, parts = divide_up(area, pixels * kWarp);
        if (area > 256 || (pixels > 1 && parts * pixels * kWarp > 2 * area)) continue;
        const int64_t h0 = (t0 - 1) * static_cast<int64_t>(p.stride[0]) +
                           (kernel[0] - 1) * static_cast<int64_t>(dilation[0]) + 1;
        const int64_t h1 = (t1 - 1) * static_cast<int64_t>(p.stride[1]) +
                           (kernel[1] - 1) * static_cast<int64_t>(dilation[1]) + 1;
        const int64_t phase = divide_up(h1, p.stride[1]);
        if (h0 >= 1 << 15 || h1 >= 1 << 15 || h0 * h1 >= 1 << 15 || phase * p.stride[1] >= 1 << 15)
          continue;
        const int pitch = padded_pitch(static_cast<int>(phase * p.stride[1]), t1, p.stride[0]);
        const int64_t z_pitch = h0 * pitch, t_pitch = parts * pixels * kWarp,
                      in_parts = divide_up(h0 * h1, pixels * kWarp);
        const int64_t tiles0 = divide_up(w.out[1], t0), tiles1 = divide_up(w.out[2], t1);
        for (int64_t held : {128, 64, 32, 16, 8}) {  // channels of Z at a time
          if (held < q_) continue;
          const int64_t chunk_units = std::min<int64_t>(held / q_, units1_);
          const int64_t chunk_groups =
              chunk_units < units1_
                  ? 1
                  : std::min<int64_t>(std::max<int64_t>(1, held / q_ / units1_), p.input_groups);
          const int64_t z_words = divide_up(chunk_groups * chunk_units * q_ * z_pitch, 4) * 4;
          const int64_t bytes = 4 * (z_words + terms * t_pitch);
          least = std::min(least, bytes);
          if (bytes > device.shared_block) continue;
          for (int64_t splits = 1; splits <= std::min(units3_, 8); splits *= 2) {
            const int64_t blocks = in.batch * w.out[0] * tiles0 * tiles1 * p.output_groups * splits;
            if (blocks > kMaxIndex) continue;
            const int warps = kLowRankThreads / kWarp;
            const double product =
                pixels * q_ + 2.0 * pixels + q_ / 2.0 + 4;  // instructions of one term
            const double chunks = static_cast<double>(divide_up(p.input_groups, chunk_groups)) *
                                  divide_up(units1_, chunk_units);
            const double first = chunks * divide_up(chunk_groups * chunk_units * in_parts, warps) *
                                 (C * (product + 2 * pixels) + 40 + pixels * q_);
            const double second =
                d_.depthwise
                    ? chunks * divide_up(chunk_groups * chunk_units * q_, warps) * parts *
                          (taps * (4.0 * pixels + 6) + 40)
                    : chunks * divide_up(chunk_groups * units2_ * parts, warps) *
                          (std::min<int64_t>(p.rank1, chunk_units * q_) * taps * (product + 4) +
                           80 + 2 * pixels * q_);
            const double third =
                static_cast<double>(divide_up(divide_up(units3_, splits) * parts, warps)) *
                (terms * product + 100 + 2 * pixels * q_);
            const int64_t together =
                std::clamp<int64_t>(device.shared_multiprocessor / (bytes + 1024), 1, 2);
            const double waves =
                static_cast<double>(divide_up(blocks, device.multiprocessors * together)) *
                together;
            const double cost = waves * (w.kernel[0] * (first + second) + third + 1000) *
                                (together < 2 ? 1.4 : 1.0);
            if (cost >= cheapest) continue;
            cheapest = cost;
            p.tile[0] = t0, p.tile[1] = t1;
            p.tiles[0] = static_cast<int>(tiles0), p.tiles[1] = static_cast<int>(tiles1);
            p.halo[0] = static_cast<int>(h0), p.halo[1] = static_cast<int>(h1);
            p.splits = static_cast<int>(splits);
            p.chunk_groups = static_cast<int>(chunk_groups),
            p.chunk_units = static_cast<int>(chunk_units);
            p.row_pitch = pitch, p.phase_pitch = static_cast<int>(phase);
            p.z_pitch = static_cast<int>(z_pitch), p.t_pitch = static_cast<int>(t_pitch),
            p.z_words = static_cast<int>(z_words);
            p.column_divisor = divisor(h1), p.tile_divisor = divisor(t1);
            launch = {static_cast<int>(blocks), kLowRankThreads, static_cast<int>(bytes), pixels,
                      q_};
          }
        }
      }
  if (cheapest == INFINITY)
    throw std::runtime_error("a block needs at least " + std::to_string(least) +
                             " bytes of shared memory and this GPU has " +
                             std::to_string(device.shared_block) +
                             ", or there are too many blocks; use standard ops for this layer");
  *params = p;
  return launch;
}

Launch plan_lrn(const Lrn& d, const Image& in, const Device& device, LrnParams* params) {
  LrnParams p{};
  p.plane = in.size[0] * in.size[1] * in.size[2];
  p.pixels = p.plane * in.batch;
  p.channels = narrow(in.channels, "channels");
  // Enough threads to fill the GPU, but no shorter segments than a few windows, whose ends are read
  // twice.
  const int64_t enough = int64_t{2048} * device.multiprocessors;
  const int64_t segments = std::clamp<int64_t>(divide_up(enough, p.pixels), 1,
                                               std::max<int64_t>(1, in.channels / (4 * d.size)));
  p.segment = narrow(divide_up(in.channels, segments), "channels");
  p.segments = narrow(divide_up(in.channels, p.segment), "channels");
  const int64_t before = (d.size - 1) / 2;
  // No further than the channels: sums of two indices must not overflow.
  p.before = narrow(std::min(before, in.channels), "channels");
  p.after = narrow(std::min(d.size - 1 - before, in.channels), "channels");
  p.scale = d.alpha / static_cast<float>(d.size), p.beta = d.beta, p.bias = d.bias;
  *params = p;
  return {narrow(divide_up(p.pixels * p.segments, 256), "the number of blocks"), 256, 0, 1, 1};
}

}  // namespace onnx_lowrank::cuda
