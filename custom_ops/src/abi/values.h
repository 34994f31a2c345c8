// What the runtime hands over, tensors and attributes, with every status turned into an exception, and back into one at the border.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort_abi.h"

namespace onnx_lowrank {

using abi::OrtApi;

struct Error : std::runtime_error { using std::runtime_error::runtime_error; };

inline void require(bool ok, const std::string& message) { if (!ok) throw Error(message); }

inline void check(const OrtApi* api, OrtStatus* status) {
  if (!status) return;
  std::string message = abi::GetErrorMessage(api)(status);
  abi::ReleaseStatus(api)(status);
  throw Error(message);
}

inline std::string text(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? "," : "") + std::to_string(shape[i]);
  return s + "]";
}

struct Tensor {
  std::vector<int64_t> shape;
  const void* data;
  int type;
  int64_t count() const { int64_t n = 1; for (auto d : shape) n *= d; return n; }
};

inline Tensor tensor(const OrtApi* api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, abi::GetTensorTypeAndShape(api)(value, &info));
  Tensor t{};
  size_t rank = 0;
  OrtStatus* status = abi::GetDimensionsCount(api)(info, &rank);
  t.shape.resize(rank);
  if (!status) status = abi::GetDimensions(api)(info, t.shape.data(), rank);
  if (!status) status = abi::GetTensorElementType(api)(info, &t.type);
  abi::ReleaseTensorTypeAndShapeInfo(api)(info);
  check(api, status);
  void* data = nullptr;
  check(api, abi::GetTensorMutableData(api)(const_cast<OrtValue*>(value), &data));
  t.data = data;
  return t;
}

struct Attributes {
  const OrtApi* api;
  const OrtKernelInfo* info;
  int64_t integer(const char* name) const {
    int64_t v = 0;
    check(api, abi::KernelInfoGetAttribute_int64(api)(info, name, &v));
    return v;
  }
  float real(const char* name) const {
    float v = 0;
    check(api, abi::KernelInfoGetAttribute_float(api)(info, name, &v));
    return v;
  }
  float real(const char* name, float otherwise) const {
    float v = 0;
    if (OrtStatus* s = abi::KernelInfoGetAttribute_float(api)(info, name, &v)) { abi::ReleaseStatus(api)(s); return otherwise; }
    return v;
  }
  std::vector<int64_t> integers(const char* name) const {
    size_t n = 0;
    check(api, abi::KernelInfoGetAttributeArray_int64(api)(info, name, nullptr, &n));
    std::vector<int64_t> v(n);
    check(api, abi::KernelInfoGetAttributeArray_int64(api)(info, name, v.data(), &n));
    return v;
  }
};

template <class F>
OrtStatus* guarded(const OrtApi* api, const std::string& where, F&& f) noexcept {
  try { f(); return nullptr; }
  catch (const std::exception& e) { return abi::CreateStatus(api)(abi::kInvalidArgument, (where + e.what()).c_str()); }
  catch (...) { return abi::CreateStatus(api)(abi::kFail, where.c_str()); }
}

}  // namespace onnx_lowrank
