// From attributes and weights of a node to the description a kernel is made from; every attribute
// and shape is checked.
#pragma once
#include <algorithm>
#include <cmath>

#include "half.h"
#include "shapes.h"

namespace onnx_lowrank {

// A layer that is ready for any X that fits. K is Kernel, or what a GPU has for it.
template <class K>
struct Built {
  std::unique_ptr<K> kernel;
  ShapesOf shapes;
};

// A node whose attributes were read; its weights come when it runs where they are no constants.
template <class K>
class Node {
 public:
  virtual ~Node() = default;
  // What X must be like for weights that are all constant; the size of its images is open.
  virtual std::vector<int64_t> image(const std::vector<Tensor>& weights) const = 0;
  virtual Built<K> build(const std::vector<int64_t>& x,
                         const std::vector<Tensor>& weights) const = 0;
};

// A Node of a reader, which has image() and describe(), and of make(description, flat).
template <class K, class Reader, class Make>
std::unique_ptr<Node<K>> node(Reader reader, Make make) {
  class Read : public Node<K> {
   public:
    Read(Reader reader, Make make) : reader_(std::move(reader)), make_(make) {}
    std::vector<int64_t> image(const std::vector<Tensor>& weights) const override {
      return reader_.image(weights);
    }
    Built<K> build(const std::vector<int64_t>& x,
                   const std::vector<Tensor>& weights) const override {
      const auto d = reader_.describe(x, weights);
      return {make_(d, x.size() < 5), shapes_of(d, x.size())};
    }

   private:
    Reader reader_;
    Make make_;
  };
  return std::make_unique<Read>(std::move(reader), make);
}

// What every convolution has.
struct WindowAttributes {
  std::vector<int64_t> strides, dilations, pads;
  Activation activation;

  explicit WindowAttributes(const Attributes& a)
      : strides(a.integers("strides")),
        dilations(a.integers("dilations")),
        pads(a.integers("pads")),
        activation{a.real("min"), a.real("max"), a.real("alpha")} {
    require(!std::isnan(activation.min) && !std::isnan(activation.max) &&
                std::isfinite(activation.alpha),
            "min and max must be numbers and alpha finite");
  }
};

// X for constant weights of these shapes: as many axes as `weight`, and `channels`.
inline std::vector<int64_t> image_of(const std::vector<int64_t>& weight, int64_t channels) {
  require(weight.size() >= 3 && weight.size() <= 5,
          "weights have shape " + text(weight) + ", expected 3 to 5 axes");
  std::vector<int64_t> x(weight.size(), 1);
  x[1] = channels;
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

inline Window window(const WindowAttributes& n, const std::vector<int64_t>& weight) {
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

// Reads the attributes of a node; one function of each op, of the CPU's kernels.
namespace nodes {
#define ONNX_LOWRANK_OP(file, ...) std::unique_ptr<Node<Kernel>> file(const Attributes& a);
#include "ops.inc"
#undef ONNX_LOWRANK_OP
}  // namespace nodes

}  // namespace onnx_lowrank
