// launch.h on the host: with it cuda_ops.cc is an onnxruntime library on the CPU provider, to test
// all but the GPU itself.
#include "cuda_emulation.h"

#include <mutex>

#include "../src/cuda/instances.h"
#include "../src/cuda/launch.h"

namespace onnx_lowrank::cuda {
namespace {

std::mutex one_at_a_time;  // the emulation has one block

template <class T, class Params>
void start(const Launch& l, const Params& params, bool depthwise, const void* in, void* out) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  std::lock_guard<std::mutex> lock(one_at_a_time);
  std::mt19937 engine(1);
  auto run = [&](auto&& body) {
    emulation::launch(l.blocks, l.threads, l.shared_bytes, engine, body);
  };
  if constexpr (std::is_same_v<Params, LrnParams>) {
    run([&] { lrn_kernel<T>(params, x, y); });
  } else if constexpr (std::is_same_v<Params, MonoParams>) {
    mono_instance(
        l, [&](auto p, auto q) { run([&] { mono_kernel<T, p, q, kMonoThreads>(params, x, y); }); });
  } else {
    low_rank_instance(l, [&](auto p, auto q) {
      run([&] {
        if (depthwise)
          low_rank_kernel<T, true, p, q>(params, x, y);
        else
          low_rank_kernel<T, false, p, q>(params, x, y);
      });
    });
  }
}

template <class Params, class Plan>
class Emulated : public Layer {
 public:
  Emulated(Plan plan, bool depthwise) : plan_(std::move(plan)), depthwise_(depthwise) {}
  void run(const Image& in, Type type, const void* x, void* y, void*) override {
    Params params;
    const Launch l = plan_(in, &params);
    storage_type(type, [&](auto pointer) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(pointer)>>;
      start<T>(l, params, depthwise_, x, y);
    });
  }

 private:
  Plan plan_;
  bool depthwise_;
};

template <class Params, class Plan>
std::unique_ptr<Layer> emulated(Plan plan, bool depthwise) {
  return std::make_unique<Emulated<Params, Plan>>(std::move(plan), depthwise);
}

}  // namespace

Device current_device() { return {4, 99 << 10, 100 << 10}; }

std::unique_ptr<Layer> make_layer(const Monochromatic& d) {
  return emulated<MonoParams>(
      [plan = MonoPlan(d)](const Image& in, MonoParams* p) {
        return plan.plan(in, current_device(), plan.packed().floats.data(),
                         plan.packed().ints.data(), p);
      },
      false);
}
std::unique_ptr<Layer> make_layer(const LowRank& d) {
  return emulated<LowRankParams>(
      [plan = LowRankPlan(d)](const Image& in, LowRankParams* p) {
        return plan.plan(in, current_device(), plan.packed().floats.data(),
                         plan.packed().ints.data(), p);
      },
      d.depthwise);
}
std::unique_ptr<Layer> make_layer(const Lrn& d) {
  return emulated<LrnParams>(
      [d](const Image& in, LrnParams* p) { return plan_lrn(d, in, current_device(), p); }, false);
}

}  // namespace onnx_lowrank::cuda
