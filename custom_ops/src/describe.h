// From attributes and weights of a node to the description a kernel is made from; every attribute
// and shape is checked.
#pragma once
#include <algorithm>
#include <cmath>

#include "half.h"
#include "shapes.h"

namespace onnx_lowrank {

struct Node {  // what the attributes say
  std::vector<int64_t> strides, dilations, pads;
  Activation activation;
  int64_t colours = 0, input_groups = 0, output_groups = 0, core_groups = 0;
  Lrn lrn{};
};

// The attributes of an op, by the names that the runtime knows them by.
inline Lrn lrn_attributes(const Attributes& a) {
  const Lrn d{a.integer("size"), a.real("alpha", 1e-4f), a.real("beta", 0.75f),
              a.real("bias", 1.0f)};
  require(d.size > 0 && d.size <= kMostExtent,
          "size is " + std::to_string(d.size) + ", expected 1 to " + std::to_string(kMostExtent));
  return d;
}

enum class Kind { kMonochromatic, kTucker2, kCp, kLrn };

inline Node convolution_attributes(const Attributes& a, Kind kind) {
  Node n;
  n.strides = a.integers("strides"), n.dilations = a.integers("dilations"),
  n.pads = a.integers("pads");
  n.activation = {a.real("min"), a.real("max"), a.real("alpha")};
  require(!std::isnan(n.activation.min) && !std::isnan(n.activation.max) &&
              std::isfinite(n.activation.alpha),
          "min and max must be numbers and alpha finite");
  if (kind == Kind::kMonochromatic) {
    n.colours = a.integer("colours");
    return n;
  }
  n.input_groups = a.integer("input_groups"), n.output_groups = a.integer("output_groups");
  n.core_groups = a.integer(kind == Kind::kCp ? "channels" : "blocks");
  return n;
}

// Weights that are all constant say what X must be like; the size of its images is open.
inline std::vector<int64_t> image_of(const std::vector<Tensor>& w, Kind kind) {
  const bool monochromatic = kind == Kind::kMonochromatic;
  const std::vector<int64_t>& first = w[monochromatic ? 0 : 1].shape;
  require(first.size() >= 3 && first.size() <= 5,
          "weights have shape " + text(first) + ", expected 3 to 5 axes");
  std::vector<int64_t> x(first.size(), 1);
  x[1] = monochromatic ? first[1] : w[0].shape.empty() ? 0 : w[0].shape[0];
  return x;
}

// A tensor of any of the float types, in float32.
inline std::vector<float> floats(const Tensor& t, const char* name) {
  std::vector<float> v(t.count());
  if (t.type == abi::kFloat)
    std::copy_n(static_cast<const float*>(t.data), v.size(), v.begin());
  else if (t.type == abi::kFloat16)
    widen<Float16>(t.data, v.data(), t.count());
  else if (t.type == abi::kBFloat16)
    widen<BFloat16>(t.data, v.data(), t.count());
  else
    throw Error(std::string(name) + " is not float32, float16 or bfloat16");
  return v;
}

inline std::vector<int64_t> permutation(const Tensor& t, int64_t count, const char* name) {
  require(t.type == abi::kInt64 && t.shape == std::vector<int64_t>{count},
          std::string(name) + " has shape " + text(t.shape) + ", expected int64 [" +
              std::to_string(count) + "]");
  auto p = static_cast<const int64_t*>(t.data);
  std::vector<int64_t> v(p, p + count);
  std::vector<bool> seen(count);
  bool all = true;
  for (int64_t i : v) {
    all = all && i >= 0 && i < count && !seen[i];
    if (all) seen[i] = true;
  }
  require(all, std::string(name) + " is not a permutation");
  return v;
}

inline void expect(const Tensor& t, const std::vector<int64_t>& shape, const char* name) {
  require(t.shape == shape,
          std::string(name) + " has shape " + text(t.shape) + ", expected " + text(shape));
}

// No axis of a weight is empty or beyond what is indexed: products of axes of one weight are then
// the size of real memory.
inline void expect_weights(const std::vector<Tensor>& w, std::initializer_list<const char*> names) {
  auto t = w.begin();
  for (const char* name : names) {
    expect_extents(t->shape, name);
    require(t->count() > 0,
            std::string(name) + " has shape " + text(t->shape) + ", expected no empty axis");
    ++t;
  }
}

inline Window window(const Node& n, const std::vector<int64_t>& weight) {
  const size_t axes = weight.size() - 2;
  require(n.strides.size() == axes && n.dilations.size() == axes && n.pads.size() == 2 * axes,
          "strides, dilations and pads do not fit a kernel of " + std::to_string(axes) + " axes");
  auto bounded = [](int64_t v, int64_t least) { return v >= least && v <= kMostExtent; };
  Window w;
  for (size_t i = 0; i < axes; ++i) {
    const size_t to = 3 - axes + i;
    w.kernel[to] = weight[2 + i];
    w.stride[to] = n.strides[i];
    w.dilation[to] = n.dilations[i];
    w.begin[to] = n.pads[i];
    w.end[to] = n.pads[axes + i];
    require(bounded(w.kernel[to], 1) && bounded(w.stride[to], 1) && bounded(w.dilation[to], 1) &&
                bounded(w.begin[to], 0) && bounded(w.end[to], 0) &&
                bounded((w.kernel[to] - 1) * w.dilation[to] + 1, 1),
            "kernel, strides and dilations must be positive, pads not negative, and all of them "
            "and the reach of the " +
                std::string("kernel at most ") + std::to_string(kMostExtent) + "; axis " +
                std::to_string(i) + " has kernel " + std::to_string(w.kernel[to]) + ", stride " +
                std::to_string(w.stride[to]) + ", dilation " + std::to_string(w.dilation[to]) +
                ", pads " + std::to_string(w.begin[to]) + " and " + std::to_string(w.end[to]));
  }
  return w;
}

inline std::vector<int64_t> with_axes(std::vector<int64_t> head, const std::vector<int64_t>& x,
                                      bool ones, const Tensor* from = nullptr) {
  for (size_t i = 2; i < x.size(); ++i) head.push_back(ones ? 1 : from->shape[i]);
  return head;
}

inline Monochromatic monochromatic(const Node& n, const std::vector<int64_t>& x,
                                   const std::vector<Tensor>& w) {
  expect_image(x);
  expect_weights(w, {"colours", "filters", "bias", "order"});
  require(w[1].shape.size() == x.size(), "filters has " + std::to_string(w[1].shape.size()) +
                                             " axes, X has " + std::to_string(x.size()));
  const int64_t F = w[1].shape[0];
  require(n.colours > 0 && F % n.colours == 0, std::to_string(F) + " filters do not divide into " +
                                                   std::to_string(n.colours) + " colours");
  expect(w[0], with_axes({n.colours, x[1]}, x, true), "colours");
  expect(w[1], with_axes({F, 1}, x, false, &w[1]), "filters");
  expect(w[2], {F}, "bias");
  return {x[1],
          F,
          n.colours,
          window(n, w[1].shape),
          n.activation,
          floats(w[0], "colours"),
          floats(w[1], "filters"),
          floats(w[2], "bias"),
          permutation(w[3], F, "order")};
}

inline LowRank low_rank(bool depthwise, const Node& n, const std::vector<int64_t>& x,
                        const std::vector<Tensor>& w) {
  expect_image(x);
  const char* const middle_weights = depthwise ? "depthwise" : "core";
  expect_weights(w,
                 {"input_order", "A", middle_weights, "middle_order", "B", "bias", "output_order"});
  const int64_t G = n.input_groups, H = n.output_groups, C = x[1];
  const Tensor &A = w[1], &core = w[2], &B = w[4];
  require(A.shape.size() == x.size() && core.shape.size() == x.size() && B.shape.size() == x.size(),
          "A, core and B must have as many axes as X");
  const int64_t F = B.shape[0];
  require(G > 0 && H > 0 && C > 0 && C % G == 0 && F % H == 0,
          "input_groups and output_groups must divide the channels " + std::to_string(C) + " and " +
              std::to_string(F));
  // G and H are no larger than an axis: their product cannot overflow.
  require(A.shape[0] % (G * H) == 0 && core.shape[0] % (G * H) == 0,
          "rows of A and core must be a multiple of input_groups x output_groups");
  const int64_t K1 = A.shape[0] / (G * H), K2 = core.shape[0] / (G * H);
  require(!depthwise || K1 == K2, "A has " + std::to_string(A.shape[0]) + " rows, depthwise " +
                                      std::to_string(core.shape[0]));
  // The kernels need no number of groups for the core, but the function body goes by it.
  require(n.core_groups == (depthwise ? G * H * K2 : G * H),
          std::string(depthwise ? "channels" : "blocks") + " is " + std::to_string(n.core_groups) +
              ", expected " + std::to_string(depthwise ? G * H * K2 : G * H));
  expect(A, with_axes({G * H * K1, C / G}, x, true), "A");
  expect(core, with_axes({G * H * K2, depthwise ? 1 : K1}, x, false, &core), middle_weights);
  expect(B, with_axes({F, G * K2}, x, true), "B");
  expect(w[5], {F}, "bias");
  auto middle = permutation(w[3], G * H * K2, "middle_order");
  bool regroups = true;
  for (int64_t h = 0, i = 0; h < H; ++h)
    for (int64_t g = 0; g < G; ++g)
      for (int64_t k = 0; k < K2; ++k, ++i)
        regroups = regroups && middle[i] == (g * H + h) * K2 + k;
  require(regroups, "middle_order is not the permutation from (g,h) to (h,g) order");
  return {depthwise,
          C,
          F,
          G,
          H,
          K1,
          K2,
          window(n, core.shape),
          n.activation,
          floats(A, "A"),
          floats(core, "core"),
          floats(B, "B"),
          floats(w[5], "bias"),
          permutation(w[0], C, "input_order"),
          permutation(w[6], F, "output_order")};
}

}  // namespace onnx_lowrank
