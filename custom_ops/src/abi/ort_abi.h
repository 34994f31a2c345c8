// The few members of onnxruntime's C ABI that this library calls, by slot. Slots never move and
// newer versions only append, so a table of untyped pointers and one typed accessor per member is
// all the header that is needed. Each slot number is the index of the member in `struct OrtApi`
// (onnxruntime_c_api.h, read at API version 29).
#pragma once
#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;
struct OrtCustomOp;
struct OrtMemoryInfo;

namespace abi {

// KernelContext_ParallelFor is the newest member in use; it appeared in API version 17.
constexpr uint32_t kApiVersion = 17;

struct OrtApi {
  void* slot[275];
};  // up to and with KernelContext_ParallelFor
struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// OrtErrorCode
enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
// ONNXTensorElementDataType
enum ElementType : int { kFloat = 1, kInt64 = 7, kFloat16 = 10, kBFloat16 = 16 };
// OrtMemType: of an input of a kernel on a device
enum MemoryType : int { kHostInput = -2, kDeviceMemory = 0 };
// OrtMemoryInfoDeviceType; pinned host memory is the CPU's
enum DeviceType : int { kCpu = 0 };

// X(name, slot, return type, parameters)
#define ONNX_LOWRANK_ABI_MEMBERS(X)                                                               \
  X(CreateStatus, 0, OrtStatus*, int, const char*)                                                \
  X(GetErrorMessage, 2, const char*, const OrtStatus*)                                            \
  X(CreateCustomOpDomain, 26, OrtStatus*, const char*, OrtCustomOpDomain**)                       \
  X(CustomOpDomain_Add, 27, OrtStatus*, OrtCustomOpDomain*, const OrtCustomOp*)                   \
  X(AddCustomOpDomain, 28, OrtStatus*, OrtSessionOptions*, OrtCustomOpDomain*)                    \
  X(GetTensorMutableData, 51, OrtStatus*, OrtValue*, void**)                                      \
  X(GetTensorElementType, 60, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int*)                 \
  X(GetDimensionsCount, 61, OrtStatus*, const OrtTensorTypeAndShapeInfo*, size_t*)                \
  X(GetDimensions, 62, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)            \
  X(GetTensorTypeAndShape, 65, OrtStatus*, const OrtValue*, OrtTensorTypeAndShapeInfo**)          \
  X(KernelInfoGetAttribute_float, 85, OrtStatus*, const OrtKernelInfo*, const char*, float*)      \
  X(KernelInfoGetAttribute_int64, 86, OrtStatus*, const OrtKernelInfo*, const char*, int64_t*)    \
  X(KernelContext_GetInputCount, 88, OrtStatus*, const OrtKernelContext*, size_t*)                \
  X(KernelContext_GetInput, 90, OrtStatus*, const OrtKernelContext*, size_t, const OrtValue**)    \
  X(KernelContext_GetOutput, 91, OrtStatus*, OrtKernelContext*, size_t, const int64_t*, size_t,   \
    OrtValue**)                                                                                   \
  X(ReleaseStatus, 93, void, OrtStatus*)                                                          \
  X(ReleaseTensorTypeAndShapeInfo, 99, void, OrtTensorTypeAndShapeInfo*)                          \
  X(KernelInfoGetAttributeArray_int64, 163, OrtStatus*, const OrtKernelInfo*, const char*,        \
    int64_t*, size_t*)                                                                            \
  X(KernelContext_GetGPUComputeStream, 193, OrtStatus*, const OrtKernelContext*, void**)          \
  X(GetTensorMemoryInfo, 194, OrtStatus*, const OrtValue*, const OrtMemoryInfo**)                 \
  X(MemoryInfoGetDeviceType, 225, void, const OrtMemoryInfo*, int*)                               \
  X(KernelInfo_GetNodeName, 244, OrtStatus*, const OrtKernelInfo*, char*, size_t*)                \
  X(KernelInfoGetConstantInput_tensor, 249, OrtStatus*, const OrtKernelInfo*, size_t, int*,       \
    const OrtValue**)                                                                             \
  X(KernelContext_ParallelFor, 274, OrtStatus*, const OrtKernelContext*, void (*)(void*, size_t), \
    size_t, size_t, void*)

#define X(name, index, ret, ...)                                     \
  inline auto name(const OrtApi* api) {                              \
    return reinterpret_cast<ret (*)(__VA_ARGS__)>(api->slot[index]); \
  }
ONNX_LOWRANK_ABI_MEMBERS(X)
#undef X

}  // namespace abi

// `struct OrtCustomOp` as of API version 17: 22 slots; a runtime reads no further than `version`
// allows.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const abi::OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const abi::OrtApi*, const OrtKernelInfo*,
                               void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, void*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
};
static_assert(sizeof(OrtCustomOp) == 22 * sizeof(void*), "22 slots");
