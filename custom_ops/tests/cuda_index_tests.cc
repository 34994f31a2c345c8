// The CUDA kernels' own source and plans, run on the host by cuda_emulation.h against a float64
// reference. This checks the arithmetic, the indices, the barriers and the plans; it is no run on a
// GPU.
#include "cuda_emulation.h"

#include <cstdio>
#include <set>
#include <string>

#include "../src/cuda/instances.h"
#include "random.h"

using namespace onnx_lowrank;
namespace cu = onnx_lowrank::cuda;
using Shape = std::array<int64_t, 3>;

namespace {

int failures = 0, cases = 0;
std::set<std::string> used;

int64_t volume(const Shape& s) { return s[0] * s[1] * s[2]; }
Shape output(const Window& w, const Shape& in) {
  return {w.output(0, in[0]), w.output(1, in[1]), w.output(2, in[2])};
}

// A grouped Conv in float64.
std::vector<double> conv(const Window& w, const Shape& in, int64_t groups, int64_t per_group,
                         int64_t rows, const std::vector<double>& x,
                         const std::vector<float>& weight, const std::vector<float>& bias) {
  const Shape out = output(w, in);
  std::vector<double> y;
  for (int64_t f = 0; f < rows; ++f)
    for (int64_t o0 = 0; o0 < out[0]; ++o0)
      for (int64_t o1 = 0; o1 < out[1]; ++o1)
        for (int64_t o2 = 0; o2 < out[2]; ++o2) {
          double sum = bias.empty() ? 0.0 : bias[f];
          for (int64_t c = 0; c < per_group; ++c)
            for (int64_t k = 0; k < w.taps(); ++k) {
              const int64_t i0 =
                  o0 * w.stride[0] + k / (w.kernel[1] * w.kernel[2]) * w.dilation[0] - w.begin[0];
              const int64_t i1 =
                  o1 * w.stride[1] + k / w.kernel[2] % w.kernel[1] * w.dilation[1] - w.begin[1];
              const int64_t i2 = o2 * w.stride[2] + k % w.kernel[2] * w.dilation[2] - w.begin[2];
              if (i0 < 0 || i0 >= in[0] || i1 < 0 || i1 >= in[1] || i2 < 0 || i2 >= in[2]) continue;
              sum += static_cast<double>(weight[(f * per_group + c) * w.taps() + k]) *
                     x[((f / (rows / groups) * per_group + c) * in[0] + i0) * in[1] * in[2] +
                       i1 * in[2] + i2];
            }
          y.push_back(sum);
        }
  return y;
}

double activate(const Activation& a, double x) {
  x = std::max<double>(std::min<double>(x, a.max), a.min);
  return x < 0 ? a.alpha * x : x;
}

std::vector<double> image(const std::vector<double>& x, int64_t n, int64_t count) {
  return {x.begin() + n * count, x.begin() + (n + 1) * count};
}

std::vector<double> reference(const Monochromatic& d, const Image& in,
                              const std::vector<double>& x) {
  std::vector<double> y;
  for (int64_t n = 0; n < in.batch; ++n) {
    const auto z = conv({}, in.size, 1, d.channels, d.colours,
                        image(x, n, d.channels * volume(in.size)), d.colour, {});
    const auto s = conv(d.window, in.size, d.colours, 1, d.filters, z, d.filter, d.bias);
    const int64_t plane = volume(output(d.window, in.size));
    for (int64_t f = 0; f < d.filters; ++f)
      for (int64_t i = 0; i < plane; ++i)
        y.push_back(activate(d.activation, s[d.order[f] * plane + i]));
  }
  return y;
}

std::vector<double> reference(const LowRank& d, const Image& in, const std::vector<double>& x) {
  const int64_t G = d.input_groups, H = d.output_groups, plane = volume(in.size),
                out = volume(output(d.window, in.size));
  std::vector<double> y;
  for (int64_t n = 0; n < in.batch; ++n) {
    std::vector<double> xo, m(G * H * d.rank2 * out);
    for (int64_t c : d.input_order) {
      const auto from = image(x, n * d.channels + c, plane);
      xo.insert(xo.end(), from.begin(), from.end());
    }
    const auto z = conv({}, in.size, G, d.channels / G, G * H * d.rank1, xo, d.a, {});
    const auto t = d.depthwise
                       ? conv(d.window, in.size, G * H * d.rank1, 1, G * H * d.rank1, z, d.core, {})
                       : conv(d.window, in.size, G * H, d.rank1, G * H * d.rank2, z, d.core, {});
    for (int64_t b = 0; b < G * H; ++b)
      std::copy_n(t.begin() + b * d.rank2 * out, d.rank2 * out,
                  m.begin() + (b % H * G + b / H) * d.rank2 * out);
    const auto s = conv({}, output(d.window, in.size), H, G * d.rank2, d.filters, m, d.b, d.bias);
    for (int64_t f = 0; f < d.filters; ++f)
      for (int64_t i = 0; i < out; ++i)
        y.push_back(activate(d.activation, s[d.output_order[f] * out + i]));
  }
  return y;
}

std::vector<double> reference(const Lrn& d, const Image& in, const std::vector<double>& x) {
  const int64_t plane = volume(in.size), before = (d.size - 1) / 2;
  std::vector<double> y(x.size());
  for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
    const int64_t c = i / plane % in.channels, from = std::max<int64_t>(0, c - before),
                  to = std::min(in.channels - 1, c - before + d.size - 1);
    double sum = 0;
    for (int64_t k = from; k <= to; ++k) sum += x[i + (k - c) * plane] * x[i + (k - c) * plane];
    y[i] = x[i] * std::pow(d.bias + d.alpha / d.size * sum, -static_cast<double>(d.beta));
  }
  return y;
}

std::string instance(const char* kernel, const cu::Launch& l) {
  return kernel + std::to_string(l.p) + "x" + std::to_string(l.q);
}

template <class T>
void run(const Monochromatic& d, const Image& in, const cu::Device& device, const T* x, T* y) {
  const cu::MonoPlan plan(d);
  cu::MonoParams p;
  const auto l = plan.plan(in, device, plan.packed().floats.data(), plan.packed().ints.data(), &p);
  used.insert(instance("mono", l));
  cu::mono_instance(l, [&](auto pixels, auto rows) {
    emulation::launch(l.blocks, l.threads, l.shared_bytes, engine,
                      [&] { cu::mono_kernel<T, pixels, rows, cu::kMonoThreads>(p, x, y); });
  });
}

template <class T>
void run(const LowRank& d, const Image& in, const cu::Device& device, const T* x, T* y) {
  const cu::LowRankPlan plan(d);
  cu::LowRankParams p;
  const auto l = plan.plan(in, device, plan.packed().floats.data(), plan.packed().ints.data(), &p);
  used.insert(instance(d.depthwise ? "cp" : "tucker", l));
  cu::low_rank_instance(l, [&](auto pixels, auto rows) {
    emulation::launch(l.blocks, l.threads, l.shared_bytes, engine, [&] {
      if (d.depthwise)
        cu::low_rank_kernel<T, true, pixels, rows>(p, x, y);
      else
        cu::low_rank_kernel<T, false, pixels, rows>(p, x, y);
    });
  });
}

template <class T>
void run(const Lrn& d, const Image& in, const cu::Device& device, const T* x, T* y) {
  cu::LrnParams p;
  const auto l = cu::plan_lrn(d, in, device, &p);
  emulation::launch(l.blocks, l.threads, l.shared_bytes, engine,
                    [&] { cu::lrn_kernel<T>(p, x, y); });
}

float widen(float v) { return v; }
float widen(half v) { return __half2float(v); }
float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
void narrow(float v, float* p) { *p = v; }
void narrow(float v, half* p) { *p = __float2half_rn(v); }
void narrow(float v, __nv_bfloat16* p) { *p = __float2bfloat16_rn(v); }
template <class T>
const char* type_name = "float32";
template <>
const char* type_name<half> = "float16";
template <>
const char* type_name<__nv_bfloat16> = "bfloat16";
template <class T>
const double half_unit = 0;
template <>
const double half_unit<half> = 0x1p-11;
template <>
const double half_unit<__nv_bfloat16> = 0x1p-8;

// float32: three sums of at most a few hundred terms, relative to the largest output: 3 sqrt(300)
// eps ~ 6e-6, as on the CPU. float16 and bfloat16: X is the same rounded one on both sides, sums
// are in float32, so only Y is rounded: half a unit of |y|.
template <class T, class D>
void compare(const std::string& what, const D& d, const Image& in, const cu::Device& device) {
  const auto drawn = values(in.batch * in.channels * volume(in.size));
  std::vector<T> x(drawn.size());
  std::vector<double> wide(drawn.size());
  for (size_t i = 0; i < x.size(); ++i) {
    narrow(drawn[i], &x[i]);
    wide[i] = widen(x[i]);
  }
  const auto expected = reference(d, in, wide);
  std::vector<T> got(expected.size());
  std::memset(static_cast<void*>(got.data()), 0xff, got.size() * sizeof(T));  // NaN
  ++cases;
  try {
    run(d, in, device, x.data(), got.data());
  } catch (const std::exception& e) {
    std::printf("%s: %s\n", what.c_str(), e.what());
    ++failures;
    return;
  }
  double most = 0;
  for (double v : expected) most = std::max(most, std::fabs(v));
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound = 6e-6 * most + std::fabs(expected[i]) * half_unit<T>;
    if (std::fabs(widen(got[i]) - expected[i]) <= bound) continue;
    std::printf("%s, %d multiprocessors, %d bytes, %s: [%zu of %zu] %g, expected %g\n",
                what.c_str(), device.multiprocessors, device.shared_block, type_name<T>, i,
                got.size(), widen(got[i]), expected[i]);
    ++failures;
    return;
  }
}

// The shared memory of compute capability 9.0 and 7.5; few multiprocessors make plans of large
// tiles, many of small ones.
const cu::Device kDevices[] = {
    {1, 227 << 10, 228 << 10}, {132, 227 << 10, 228 << 10}, {4, 64 << 10, 64 << 10}};

template <class D>
void everywhere(const std::string& what, const D& d, const Image& in) {
  compare<float>(what, d, in, kDevices[cases % 3]);
  compare<half>(what, d, in, kDevices[(cases + 1) % 3]);
}

template <class D>
void on_all(const std::string& what, const D& d, const Image& in) {
  for (const auto& device : kDevices) compare<float>(what, d, in, device);
  compare<half>(what, d, in, kDevices[0]);
  compare<__nv_bfloat16>(what, d, in, kDevices[1]);
}

Monochromatic monochromatic(int64_t channels, int64_t filters, int64_t colours, const Window& w,
                            const Activation& a) {
  return {channels,
          filters,
          colours,
          w,
          a,
          values(colours * channels, 1 / std::sqrt(channels)),
          values(filters * w.taps(), 1 / std::sqrt(w.taps())),
          values(filters),
          shuffled(filters)};
}

LowRank low_rank(bool depthwise, int64_t channels, int64_t filters, int64_t g, int64_t h,
                 int64_t k1, int64_t k2, const Window& w, const Activation& a) {
  const int64_t per = (depthwise ? 1 : k1) * w.taps();
  return {depthwise,
          channels,
          filters,
          g,
          h,
          k1,
          k2,
          w,
          a,
          values(g * h * k1 * channels / g, 1 / std::sqrt(channels / g)),
          values(g * h * k2 * per, 1 / std::sqrt(per)),
          values(filters * g * k2, 1 / std::sqrt(g * k2)),
          values(filters),
          shuffled(channels),
          shuffled(filters)};
}

void all_ops(const Window& w, const Image& in, const std::string& what) {
  const Activation plain{}, clipped{-0.5f, 1.0f, 0.1f};
  for (const Activation& a : {plain, clipped}) {
    for (auto [colours, filters] : {std::pair<int, int>{2, 6}, {3, 51}, {1, 5}, {7, 14}, {1, 12}})
      everywhere("mono " + what, monochromatic(6, filters, colours, w, a), in);
    for (auto [g, h, k1, k2] :
         {std::array<int, 4>{1, 1, 5, 7}, {3, 2, 4, 9}, {2, 3, 17, 3}, {1, 1, 20, 16}}) {
      everywhere("tucker " + what, low_rank(false, 6, 12, g, h, k1, k2, w, a), in);
      everywhere("cp " + what, low_rank(true, 6, 12, g, h, k2, k2, w, a), in);
    }
  }
}

}  // namespace

int main() {
  const Shape kernels[] = {{1, 1, 1}, {1, 3, 3}, {1, 5, 4}, {1, 7, 7}, {1, 1, 3}, {3, 2, 3}};
  for (size_t k = 0; k < 6; ++k)
    for (int64_t stride : {1, 2, 3})
      for (int64_t pad : {0, 2})
        for (int64_t dilation : {1, 2}) {
          Window w;
          w.kernel = kernels[k];
          for (int axis = k == 5 ? 0 : k == 4 ? 2 : 1; axis < 3; ++axis)
            w.stride[axis] = stride, w.dilation[axis] = dilation, w.begin[axis] = w.end[axis] = pad;
          const Image in{2, 6,
                         k == 5   ? Shape{5, 6, 9}
                         : k == 4 ? Shape{1, 1, 23}
                                  : Shape{1, 14, 19}};
          all_ops(w, in,
                  "kernel " + std::to_string(k) + " s" + std::to_string(stride) + " p" +
                      std::to_string(pad) + " d" + std::to_string(dilation));
        }
  Window three;
  three.kernel = {1, 3, 3};
  three.begin = three.end = {0, 1, 1};
  for (int64_t width : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 127, 129, 300})
    for (int64_t height : {1, 5})
      all_ops(three, {1, 6, {1, height, width}}, "width " + std::to_string(width));
  // Different along the axes, and uneven pads.
  Window uneven;
  uneven.kernel = {1, 4, 3}, uneven.stride = {1, 1, 3}, uneven.dilation = {1, 3, 1},
  uneven.begin = {0, 0, 2}, uneven.end = {0, 5, 1};
  all_ops(uneven, {2, 6, {1, 13, 50}}, "uneven");
  // Larger ranks than a block holds at a time, many small groups, and maps that many blocks share.
  for (bool depthwise : {false, true}) {
    on_all("ranks", low_rank(depthwise, 24, 40, 1, 1, 150, 150, three, {}), {1, 24, {1, 9, 10}});
    on_all("groups", low_rank(depthwise, 96, 32, 48, 2, 8, 8, three, {}), {1, 96, {1, 9, 10}});
    on_all("large", low_rank(depthwise, 8, 48, 1, 1, 16, 16, three, {}), {1, 8, {1, 60, 70}});
    on_all("large, 32 and 64", low_rank(depthwise, 8, 64, 1, 1, 32, 64 >> depthwise, three, {}),
           {1, 8, {1, 40, 44}});
    if (!depthwise)
      on_all("wide core", low_rank(false, 8, 128, 1, 1, 16, 128, three, {}), {1, 8, {1, 32, 32}});
    on_all("large, small rank", low_rank(depthwise, 8, 16, 1, 1, 8, 8, three, {}),
           {1, 8, {1, 60, 70}});
  }
  for (int64_t colours : {4, 6, 8}) {
    on_all("first layer", monochromatic(3, 96, colours, three, {}), {1, 3, {1, 60, 70}});
    on_all("first layer", monochromatic(3, 96, colours, three, {}), {1, 3, {1, 24, 70}});
  }
  for (auto [size, beta] :
       {std::pair<int, float>{1, 0.75f}, {3, 0.5f}, {4, 0.75f}, {5, 1.0f}, {7, 0.3f}})
    for (int64_t channels : {1, 13, 96})
      everywhere("lrn", Lrn{size, 0.3f, beta, 1.5f}, {2, channels, {1, 9, 11}});
  // Every instance has to have run.
  std::set<std::string> expected;
  for (int q : {8, 12, 16})
    for (int p : {1, 2, 4, 8}) {
      if (p < 8 || q == 8) expected.insert("mono" + std::to_string(p) + "x" + std::to_string(q));
      if (p < 8 && q != 12)
        for (const char* kernel : {"cp", "tucker"})
          expected.insert(kernel + std::to_string(p) + "x" + std::to_string(q));
    }
  for (const auto& name : expected)
    if (!used.count(name)) std::printf("%s never ran\n", name.c_str()), ++failures;
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures ? 1 : 0;
}
