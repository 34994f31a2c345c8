// What the launches of all kernels share.
#pragma once
#include <cuda_runtime.h>

#include <mutex>

#include "instances.h"
#include "launch.h"

namespace onnx_lowrank::cuda {

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

// A plan depends on the size of X only: the last one is kept.
// `Start` is start<T>(launch, params, x, y, stream) as an object.
template <class Plan, class Params, class Start>
class Convolution : public Layer {
 public:
  template <class D>
  explicit Convolution(const D& d)
      : device_(current()),
        facts_(current_device()),
        plan_(d),
        floats_(plan_.packed().floats),
        ints_(plan_.packed().ints) {}

  void run(const Image& in, Type type, const void* x, void* y, void* stream) override {
    if (const int now = current(); now != device_)
      throw std::runtime_error("the weights are on GPU " + std::to_string(device_) + " and GPU " +
                               std::to_string(now) + " is current");
    Params params;
    Launch l;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (in.batch != last_.batch || in.channels != last_.channels || in.size != last_.size) {
        launch_ = plan_.plan(in, facts_, floats_.data(), ints_.data(), &params_);
        last_ = in;
      }
      params = params_;
      l = launch_;
    }
    storage_type(type, [&](auto pointer) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(pointer)>>;
      Start::template start<T>(l, params, x, y, static_cast<cudaStream_t>(stream));
    });
  }

 private:
  int device_;
  Device facts_;
  Plan plan_;
  Upload<float> floats_;
  Upload<int> ints_;
  std::mutex mutex_;
  Image last_{};
  Params params_{};
  Launch launch_{};
};

}  // namespace onnx_lowrank::cuda
