// What the fuzzed nodes of all ops share.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "../src/half.h"
#include "fake_runtime.h"

using Shape = std::vector<int64_t>;

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  int byte() { return at_ < size_ ? data_[at_++] : 0; }
  int64_t up_to(int64_t most) { return byte() % (most + 1); }
  int64_t between(int64_t least, int64_t most) { return least + up_to(most - least); }
  // Edges of types and of the limits, or a number near one.
  int64_t extreme() {
    constexpr int64_t edges[] = {0,
                                 -1,
                                 1,
                                 2,
                                 3,
                                 16,
                                 255,
                                 511,
                                 4096,
                                 4097,
                                 65536,
                                 1 << 20,
                                 (1 << 24) + 1,
                                 INT32_MAX,
                                 INT64_C(1) << 31,
                                 INT64_C(1) << 32,
                                 INT64_C(1) << 36,
                                 INT64_C(1) << 40,
                                 INT64_C(1) << 61,
                                 INT64_C(1) << 62,
                                 INT64_MAX,
                                 INT64_MIN,
                                 INT64_MIN + 1,
                                 1000};
    const int64_t edge = edges[byte() % std::size(edges)], off = up_to(4) - 2;
    return edge > INT64_MAX - 2 || edge < INT64_MIN + 2 ? edge : edge + (up_to(3) ? 0 : off);
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

// Small whole numbers: sums of their products are exact in float32, whatever the order.
inline OrtValue tensor(Bytes& in, const Shape& shape, int type) {
  OrtValue v;
  v.shape = shape;
  v.type = type;
  int64_t count = 1;
  for (int64_t d : shape)
    if (__builtin_mul_overflow(count, d, &count)) count = 0;  // there is a 0 among them
  v.data.resize(std::max<int64_t>(count, 0) * fake::element_bytes(type));
  uint32_t state = in.byte() + 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525 + 1013904223;
    const float x = static_cast<float>(state >> 24) / 64 - 2, whole = std::round(x);
    if (type == abi::kFloat) std::memcpy(&v.data[4 * i], &whole, 4);
    if (type == abi::kFloat16) {
      const auto h = onnx_lowrank::Float16::nearest(whole);
      std::memcpy(&v.data[2 * i], &h, 2);
    }
    if (type == abi::kBFloat16) {
      const auto h = onnx_lowrank::BFloat16::nearest(whole);
      std::memcpy(&v.data[2 * i], &h, 2);
    }
    if (type == abi::kInt64) std::memcpy(&v.data[8 * i], &i, 8);
  }
  return v;
}

inline void permute(Bytes& in, OrtValue* v) {
  auto p = reinterpret_cast<int64_t*>(v->data.data());
  const int64_t n = v->data.size() / 8;
  for (int64_t i = n - 1; i > 0; --i) std::swap(p[i], p[in.up_to(std::min<int64_t>(i, 255))]);
}

struct Case {
  std::string op;
  int type;
  OrtKernelInfo info;
  std::vector<std::unique_ptr<OrtValue>> inputs;
  bool constant;
  std::vector<bool> missing;
  bool powers = false;      // reals are exponents and their bases
  bool conditioned = true;  // small errors of rounding stay small
};

// What nodes of any op have: the spatial sizes and kernel, and the batch.
struct Drawn {
  int64_t batch;
  Shape size, kernel;
};

// Adds inputs to a case.
class Inputs {
 public:
  Inputs(Bytes& in, Case* c) : in_(in), case_(c) {}
  void floats(Shape head, const Shape& tail) {
    head.insert(head.end(), tail.begin(), tail.end());
    add(head, case_->type);
  }
  int64_t* integers(int64_t n) {
    add({n}, abi::kInt64);
    return reinterpret_cast<int64_t*>(case_->inputs.back()->data.data());
  }
  void order(int64_t n) {
    integers(n);
    permute(in_, case_->inputs.back().get());
  }

 private:
  void add(const Shape& shape, int type) {
    case_->inputs.push_back(std::make_unique<OrtValue>(tensor(in_, shape, type)));
  }
  Bytes& in_;
  Case* case_;
};

inline void window(Bytes& in, size_t axes, OrtKernelInfo* info) {
  for (const char* name : {"strides", "dilations"})
    for (size_t i = 0; i < axes; ++i) info->lists[name].push_back(in.between(1, 3));
  for (size_t i = 0; i < 2 * axes; ++i) info->lists["pads"].push_back(in.up_to(3));
  const float bounds[] = {-INFINITY, -1.0f, 0.0f, 2.0f, INFINITY};
  info->reals = {{"min", bounds[in.up_to(2)]},
                 {"max", bounds[in.between(2, 4)]},
                 {"alpha", in.up_to(1) ? 1.0f : 0.25f}};
}

// A node of each op that an exporter could have written, from bytes.
namespace node_cases {
#define ONNX_LOWRANK_OP(file, ...) void file(Bytes& in, const Drawn& drawn, Case* c);
#include "../src/ops.inc"
#undef ONNX_LOWRANK_OP
}  // namespace node_cases
