#include "launch.cuh"

namespace onnx_lowrank::cuda {
namespace {

struct Start {
  template <class T>
  static void start(const Launch& l, const MonoParams& params, const void* x, void* y,
                    cudaStream_t stream) {
    mono_instance(l, [&](auto p, auto q) {
      cuda::start(mono_kernel<T, p, q, kMonoThreads>, l, params, x, y, stream);
    });
  }
};

}  // namespace

std::unique_ptr<Layer> make_layer(const Monochromatic& d) {
  return std::make_unique<Convolution<MonoPlan, MonoParams, Start>>(d);
}

}  // namespace onnx_lowrank::cuda
