// What the launches of all kernels share.
#pragma once
#include <mutex>

#include "instances.h"
#include "launch.h"
#ifdef __CUDACC__
#include "device_launch.cuh"
#else
#include "../../tests/cuda_emulated_launch.h"
#endif

namespace onnx_lowrank::cuda {

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
      Start::template start<T>(l, params, x, y, static_cast<Stream>(stream));
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
