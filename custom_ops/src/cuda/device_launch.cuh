// What a launch asks of CUDA: memory for weights, the facts of a GPU, the start of a kernel. On the
// host tests/cuda_emulated_launch.h has the same.
#pragma once
#include <cuda_runtime.h>

#include "launch.h"

namespace onnx_lowrank::cuda {

using Stream = cudaStream_t;

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error) + " (" +
                             cudaGetErrorName(error) + ")");
}

inline int current() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

template <class T>
class Upload {
 public:
  explicit Upload(const std::vector<T>& from) {
    if (from.empty()) return;
    check(cudaMalloc(reinterpret_cast<void**>(&data_), from.size() * sizeof(T)),
          "memory for weights");
    const cudaError_t copied =
        cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice);
    if (copied != cudaSuccess) {
      cudaFree(data_);
      check(copied, "copy of weights");
    }
  }
  ~Upload() { cudaFree(data_); }
  Upload(const Upload&) = delete;
  const T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <class Params, class T>
void start(void (*kernel)(Params, const T*, T*), const Launch& l, const Params& params,
           const void* x, void* y, cudaStream_t stream) {
  // More than 48 KB must be asked for, for every kernel and device; the call changes nothing else
  // and costs under a microsecond.
  if (l.shared_bytes > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared_bytes),
          "shared memory of the kernel");
  kernel<<<l.blocks, l.threads, l.shared_bytes, stream>>>(params, static_cast<const T*>(x),
                                                          static_cast<T*>(y));
  check(cudaGetLastError(), "launch");
}

inline Device current_device() {
  const int device = current();
  Device d{};
  auto get = [&](int* value, cudaDeviceAttr attribute) {
    check(cudaDeviceGetAttribute(value, attribute, device), "cudaDeviceGetAttribute");
  };
  get(&d.multiprocessors, cudaDevAttrMultiProcessorCount);
  get(&d.shared_block, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  get(&d.shared_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  return d;
}

}  // namespace onnx_lowrank::cuda
