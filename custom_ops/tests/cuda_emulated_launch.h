// What src/cuda/device_launch.cuh is on a GPU, on the host: with it the CUDA ops are an onnxruntime
// library on the CPU provider, to test all but the GPU itself.
#pragma once
#include "cuda_emulation.h"

#include <mutex>

#include "../src/cuda/launch.h"

namespace onnx_lowrank::cuda {

using Stream = void*;

inline int current() { return 0; }
inline Device current_device() { return {4, 99 << 10, 100 << 10}; }

template <class T>
class Upload {
 public:
  explicit Upload(const std::vector<T>& from) : data_(from) {}
  const T* data() const { return data_.data(); }

 private:
  std::vector<T> data_;
};

inline std::mutex one_at_a_time;  // the emulation has one block

template <class Params, class T>
void start(void (*kernel)(Params, const T*, T*), const Launch& l, const Params& params,
           const void* x, void* y, Stream) {
  std::lock_guard<std::mutex> lock(one_at_a_time);
  std::mt19937 engine(1);
  emulation::launch(l.blocks, l.threads, l.shared_bytes, engine,
                    [&] { kernel(params, static_cast<const T*>(x), static_cast<T*>(y)); });
}

}  // namespace onnx_lowrank::cuda
