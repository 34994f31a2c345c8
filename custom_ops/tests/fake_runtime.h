// As much of onnxruntime's C ABI as the ops call, on plain structures: a fuzzer can hand over what
// a runtime would have refused. Tensors have their memory to themselves, so that AddressSanitizer
// sees any step beyond it.
#pragma once
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "../src/abi/ort_abi.h"

struct OrtStatus {
  std::string message;
};
struct OrtCustomOpDomain {
  std::vector<const OrtCustomOp*> ops;
};
struct OrtTensorTypeAndShapeInfo {
  std::vector<int64_t> shape;
  int type;
};
struct OrtMemoryInfo {};
struct OrtValue {
  std::vector<int64_t> shape;
  int type = abi::kFloat;
  std::vector<char> data;
};
struct OrtKernelInfo {
  std::string name = "node";
  std::map<std::string, int64_t> integers;
  std::map<std::string, float> reals;
  std::map<std::string, std::vector<int64_t>> lists;
  std::vector<const OrtValue*> constants;  // by input; null where it is no constant
};
struct OrtKernelContext {
  std::vector<const OrtValue*> inputs;  // null where it is missing
  int64_t most_outputs;  // elements; more are refused as a runtime without memory would
  OrtValue output;
};

namespace fake {

inline OrtCustomOpDomain domain;

namespace slot {
#define X(name, index, ...) constexpr int name = index;
ONNX_LOWRANK_ABI_MEMBERS(X)
#undef X
}  // namespace slot

inline OrtStatus* fail(const std::string& message) { return new OrtStatus{message}; }

template <class Map, class Value>
OrtStatus* find(const Map& map, const char* name, Value* out) {
  const auto found = map.find(name);
  if (found == map.end()) return fail(std::string("no attribute ") + name);
  *out = found->second;
  return nullptr;
}

inline int64_t element_bytes(int type) {
  return type == abi::kInt64 ? 8 : type == abi::kFloat ? 4 : 2;
}

inline abi::OrtApi make_api() {
  abi::OrtApi api{};
  auto set = [&](int index, auto* function) {
    api.slot[index] = reinterpret_cast<void*>(function);
  };
  set(slot::CreateStatus, +[](int, const char* message) { return fail(message); });
  set(slot::GetErrorMessage, +[](const OrtStatus* s) { return s->message.c_str(); });
  set(slot::ReleaseStatus, +[](OrtStatus* s) { delete s; });
  set(
      slot::CreateCustomOpDomain, +[](const char*, OrtCustomOpDomain** out) -> OrtStatus* {
        *out = &domain;
        return nullptr;
      });
  set(
      slot::CustomOpDomain_Add, +[](OrtCustomOpDomain* d, const OrtCustomOp* op) -> OrtStatus* {
        d->ops.push_back(op);
        return nullptr;
      });
  set(
      slot::AddCustomOpDomain,
      +[](OrtSessionOptions*, OrtCustomOpDomain*) -> OrtStatus* { return nullptr; });
  set(
      slot::GetTensorMutableData, +[](OrtValue* v, void** out) -> OrtStatus* {
        *out = v->data.data();
        return nullptr;
      });
  set(
      slot::GetTensorTypeAndShape,
      +[](const OrtValue* v, OrtTensorTypeAndShapeInfo** out) -> OrtStatus* {
        *out = new OrtTensorTypeAndShapeInfo{v->shape, v->type};
        return nullptr;
      });
  set(slot::ReleaseTensorTypeAndShapeInfo, +[](OrtTensorTypeAndShapeInfo* info) { delete info; });
  set(
      slot::GetTensorElementType,
      +[](const OrtTensorTypeAndShapeInfo* info, int* out) -> OrtStatus* {
        *out = info->type;
        return nullptr;
      });
  set(
      slot::GetDimensionsCount,
      +[](const OrtTensorTypeAndShapeInfo* info, size_t* out) -> OrtStatus* {
        *out = info->shape.size();
        return nullptr;
      });
  set(
      slot::GetDimensions,
      +[](const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t n) -> OrtStatus* {
        std::copy_n(info->shape.begin(), n, out);
        return nullptr;
      });
  set(
      slot::GetTensorMemoryInfo, +[](const OrtValue*, const OrtMemoryInfo** out) -> OrtStatus* {
        *out = nullptr;
        return nullptr;
      });
  set(slot::MemoryInfoGetDeviceType, +[](const OrtMemoryInfo*, int* out) { *out = abi::kCpu; });
  set(
      slot::KernelInfoGetAttribute_float, +[](const OrtKernelInfo* i, const char* name,
                                              float* out) { return find(i->reals, name, out); });
  set(
      slot::KernelInfoGetAttribute_int64,
      +[](const OrtKernelInfo* i, const char* name, int64_t* out) {
        return find(i->integers, name, out);
      });
  set(
      slot::KernelInfoGetAttributeArray_int64,
      +[](const OrtKernelInfo* i, const char* name, int64_t* out, size_t* n) -> OrtStatus* {
        std::vector<int64_t> list;
        if (OrtStatus* missing = find(i->lists, name, &list)) return missing;
        *n = list.size();
        if (out) std::copy(list.begin(), list.end(), out);
        return nullptr;
      });
  set(
      slot::KernelInfo_GetNodeName,
      +[](const OrtKernelInfo* i, char* out, size_t* length) -> OrtStatus* {
        const bool fits = out && *length > i->name.size();
        *length = i->name.size() + 1;
        if (!fits) return fail("the buffer is too small");
        std::memcpy(out, i->name.c_str(), *length);
        return nullptr;
      });
  set(
      slot::KernelInfoGetConstantInput_tensor,
      +[](const OrtKernelInfo* i, size_t input, int* constant, const OrtValue** out) -> OrtStatus* {
        *out = input < i->constants.size() ? i->constants[input] : nullptr;
        *constant = *out != nullptr;
        return nullptr;
      });
  set(
      slot::KernelContext_GetInput,
      +[](const OrtKernelContext* c, size_t i, const OrtValue** out) -> OrtStatus* {
        *out = i < c->inputs.size() ? c->inputs[i] : nullptr;
        return nullptr;
      });
  set(
      slot::KernelContext_GetOutput,
      +[](OrtKernelContext* c, size_t, const int64_t* shape, size_t axes,
          OrtValue** out) -> OrtStatus* {
        int64_t count = 1;
        for (size_t i = 0; i < axes; ++i)
          if (__builtin_mul_overflow(count, shape[i], &count) || count < 0)
            std::abort();  // the op must have checked
        if (count > c->most_outputs) return fail("no memory for Y");
        c->output.shape.assign(shape, shape + axes);
        c->output.type = c->inputs[0]->type;
        c->output.data.assign(count * element_bytes(c->output.type), '\x7f');
        *out = &c->output;
        return nullptr;
      });
  set(
      slot::KernelContext_GetGPUComputeStream,
      +[](const OrtKernelContext*, void** out) -> OrtStatus* {
        *out = nullptr;
        return nullptr;
      });
  set(
      slot::KernelContext_ParallelFor,
      +[](const OrtKernelContext*, void (*body)(void*, size_t), size_t n, size_t,
          void* data) -> OrtStatus* {
        for (size_t i = n; i-- > 0;) body(data, i);
        return nullptr;
      });
  return api;
}

inline const abi::OrtApi api = make_api();
inline const abi::OrtApiBase base{+[](uint32_t) { return &api; }, +[] { return "0"; }};

}  // namespace fake
