// What the runtime hands over, tensors and attributes, with every status turned into an exception,
// and back into one at the border.
#pragma once
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "../bounds.h"
#include "ort_abi.h"

namespace onnx_lowrank {

using abi::OrtApi;

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
  int64_t count() const { return count_of(shape); }
};

inline Tensor tensor(const OrtApi* api, const OrtValue* value) {
  require(value, "an input is missing");  // named by an empty string
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

// Where Y of this shape goes.
inline void* output(const OrtApi* api, OrtKernelContext* context,
                    const std::vector<int64_t>& shape) {
  OrtValue* y = nullptr;
  check(api, abi::KernelContext_GetOutput(api)(context, 0, shape.data(), shape.size(), &y));
  require(y, "the output is missing");
  void* data = nullptr;
  check(api, abi::GetTensorMutableData(api)(y, &data));
  return data;
}

inline std::string node_name(const OrtApi* api, const OrtKernelInfo* info) {
  size_t length = 0;
  if (OrtStatus* s = abi::KernelInfo_GetNodeName(api)(info, nullptr, &length))
    abi::ReleaseStatus(api)(s);
  std::string name(length, '\0');
  if (length) check(api, abi::KernelInfo_GetNodeName(api)(info, name.data(), &length));
  return name.c_str();
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
    if (OrtStatus* s = abi::KernelInfoGetAttribute_float(api)(info, name, &v)) {
      abi::ReleaseStatus(api)(s);
      return otherwise;
    }
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

// Runs f() and makes a status of what it throws; `where()` names the op and the node. Nothing is
// thrown from here, even where memory for a message is missing.
template <class Where, class F>
OrtStatus* guarded(const OrtApi* api, const Where& where, F&& f) noexcept {
  auto status = [&](abi::ErrorCode code, const char* what) -> OrtStatus* {
    try {
      return abi::CreateStatus(api)(code, (where() + what).c_str());
    } catch (...) {
      return abi::CreateStatus(api)(code, "onnx_lowrank: out of memory");
    }
  };
  try {
    f();
    return nullptr;
  } catch (const std::bad_alloc&) {
    return status(abi::kFail, "out of memory");
  } catch (const std::exception& e) {
    return status(abi::kInvalidArgument, e.what());
  } catch (...) {
    return status(abi::kFail, "an unknown failure");
  }
}

}  // namespace onnx_lowrank
