#include "launch.cuh"

namespace onnx_lowrank::cuda {
namespace {

struct Start {
  template <class T>
  static void start(const Launch& l, const MonoParams& params, const void* x, void* y,
                    Stream stream) {
    mono_instance(l, [&](auto p, auto q) {
      cuda::start(mono_kernel<T, p, q, kMonoThreads>, l, params, x, y, stream);
    });
  }
};

}  // namespace

std::unique_ptr<Node<Layer>> nodes::monochromatic(const Attributes& a) {
  return node<Layer>(MonochromaticNode(a),
                     [](const Monochromatic& d, bool) -> std::unique_ptr<Layer> {
                       return std::make_unique<Convolution<MonoPlan, MonoParams, Start>>(d);
                     });
}

}  // namespace onnx_lowrank::cuda
