// The library of onnxruntime's CPU provider.
#include <atomic>

#include "half.h"
#include "library.h"

namespace onnx_lowrank {
namespace {

const Entry<Kernel> kEntries[] = {
#define ONNX_LOWRANK_OP(file, name, on_cuda, inputs) {#name, on_cuda, inputs, nodes::file},
#include "ops.inc"
#undef ONNX_LOWRANK_OP
};

struct Cpu {
  using K = Kernel;
  static constexpr const char* kProvider = "CPUExecutionProvider";
  static constexpr const char* kWhere = "";
  static constexpr int kWeightMemory = abi::kDeviceMemory;
  static void check_memory(const OrtApi*, const OrtValue*, bool) {}

  // The kernels compute in float32: other types are widened before and rounded once, after the
  // activation.
  static void run(Kernel& kernel, const OrtApi* api, OrtKernelContext* context,
                  const Shapes& shapes, const Tensor& x, void* y) {
    const bool wide = x.type == abi::kFloat;
    std::vector<float> in, out;
    if (!wide) {
      in = floats(x, "X");
      out.resize(shapes.y_count);
    }
    kernel.run(shapes.image, wide ? static_cast<const float*>(x.data) : in.data(),
               wide ? static_cast<float*>(y) : out.data(),
               [&](size_t n, const std::function<void(size_t)>& body) {
                 in_parallel(api, context, n, body);
               });
    if (x.type == abi::kFloat16) narrow<Float16>(out.data(), y, shapes.y_count);
    if (x.type == abi::kBFloat16) narrow<BFloat16>(out.data(), y, shapes.y_count);
  }

 private:
  // body(i) for i in [0, n) on the session's pool. An exception must not unwind through its
  // threads.
  static void in_parallel(const OrtApi* api, OrtKernelContext* context, size_t n,
                          const std::function<void(size_t)>& body) {
    if (n == 1) return body(0);
    struct Job {
      const std::function<void(size_t)>& body;
      std::atomic_flag failed = ATOMIC_FLAG_INIT;
      bool bad = false;
    } job{body};
    auto one = [](void* p, size_t i) {
      auto j = static_cast<Job*>(p);
      try {
        j->body(i);
      } catch (...) {
        if (!j->failed.test_and_set()) j->bad = true;
      }
    };
    check(api, abi::KernelContext_ParallelFor(api)(context, one, n, 0, &job));
    require(!job.bad, "a worker ran out of memory");
  }
};

const std::vector<Op<Cpu>>& every_op() {
  selected_isa();  // an unknown name is refused at once
  static const std::vector<Op<Cpu>> ops = [] {
    std::vector<const Entry<Kernel>*> all;
    for (const auto& entry : kEntries) all.push_back(&entry);
    return for_every_type<Cpu>(all);
  }();
  return ops;
}

}  // namespace
}  // namespace onnx_lowrank

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const abi::OrtApiBase* base) {
  return onnx_lowrank::register_ops<onnx_lowrank::Cpu>(options, base, onnx_lowrank::every_op);
}
