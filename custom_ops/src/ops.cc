// The four ops as onnxruntime sees them: attributes and tensors in, statuses out. No exception
// crosses the ABI.
#include <algorithm>
#include <atomic>

#include "abi/values.h"
#include "describe.h"
#include "half.h"
#include "kernels.h"

namespace onnx_lowrank {
namespace {

struct Op : OrtCustomOp {
  Kind kind;
  const char* name;
  std::vector<int> inputs;
};

struct Built {
  std::unique_ptr<Kernel> kernel;
  Outline outline;
};

struct State {
  const Op* op;
  const OrtApi* api;
  std::string node;
  Node attributes;
  Built fixed;  // without a kernel unless all weights are constant

  std::string where() const { return std::string(op->name) + " '" + node + "': "; }
  Built build(const std::vector<int64_t>& x, const std::vector<Tensor>& w) const {
    const bool flat = x.size() < 5;
    if (op->kind == Kind::kMonochromatic) {
      auto d = monochromatic(attributes, x, w);
      return {make_kernel(selected_isa(), d, flat), {d.window, d.channels, d.filters, x.size()}};
    }
    auto d = low_rank(op->kind == Kind::kCp, attributes, x, w);
    return {make_kernel(selected_isa(), d, flat), {d.window, d.channels, d.filters, x.size()}};
  }
};

OrtStatus* create(const OrtCustomOp* base, const OrtApi* api, const OrtKernelInfo* info,
                  void** out) noexcept {
  auto op = static_cast<const Op*>(base);
  std::unique_ptr<State> s;
  return guarded(
      api, [&] { return s ? s->where() : std::string(op->name) + ": "; },
      [&] {
        s = std::make_unique<State>();
        s->op = op;
        s->api = api;
        s->node = node_name(api, info);
        const Attributes a{api, info};
        if (op->kind == Kind::kLrn) {
          s->attributes.lrn = lrn_attributes(a);
          s->fixed.kernel = make_kernel(selected_isa(), s->attributes.lrn);
        } else {
          s->attributes = convolution_attributes(a, op->kind);
          std::vector<Tensor> w;
          for (size_t i = 1; i < op->inputs.size(); ++i) {
            int constant = 0;
            const OrtValue* v = nullptr;
            check(api, abi::KernelInfoGetConstantInput_tensor(api)(info, i, &constant, &v));
            if (!constant) break;
            w.push_back(tensor(api, v));
          }
          if (w.size() + 1 == op->inputs.size()) s->fixed = s->build(image_of(w, op->kind), w);
        }
        *out = s.release();
      });
}

OrtStatus* compute(void* self, OrtKernelContext* context) noexcept {
  auto s = static_cast<State*>(self);
  const OrtApi* api = s->api;
  return guarded(
      api, [&] { return s->where(); },
      [&] {
        auto input = [&](size_t i) {
          const OrtValue* v = nullptr;
          check(api, abi::KernelContext_GetInput(api)(context, i, &v));
          return tensor(api, v);
        };
        const Tensor x = input(0);
        Built own;
        const Built* built = &s->fixed;
        if (!built->kernel) {
          std::vector<Tensor> w;
          for (size_t i = 1; i < s->op->inputs.size(); ++i) w.push_back(input(i));
          own = s->build(x.shape, w);
          built = &own;
        }
        const Shapes shapes = s->op->kind == Kind::kLrn ? normalised(s->attributes.lrn, x.shape)
                                                        : convolved(built->outline, x.shape);
        void* data = output(api, context, shapes.y);
        const int64_t count = shapes.y_count;
        if (count == 0) return;
        // The kernels compute in float32: other types are widened before and rounded once, after
        // the activation.
        const bool wide = x.type == abi::kFloat;
        std::vector<float> in_float, out_float;
        if (!wide) {
          in_float = floats(x, "X");
          out_float.resize(count);
        }
        built->kernel->run(shapes.image, wide ? static_cast<const float*>(x.data) : in_float.data(),
                           wide ? static_cast<float*>(data) : out_float.data(),
                           [&](size_t n, const std::function<void(size_t)>& body) {
                             if (n == 1) return body(0);
                             // An exception must not unwind through the pool's thread.
                             struct Job {
                               const std::function<void(size_t)>& body;
                               std::atomic_flag failed = ATOMIC_FLAG_INIT;
                               bool bad = false;
                             } job{body};
                             check(api, abi::KernelContext_ParallelFor(api)(
                                            context,
                                            [](void* p, size_t i) {
                                              auto j = static_cast<Job*>(p);
                                              try {
                                                j->body(i);
                                              } catch (...) {
                                                if (!j->failed.test_and_set()) j->bad = true;
                                              }
                                            },
                                            n, 0, &job));
                             require(!job.bad, "a worker ran out of memory");
                           });
        if (x.type == abi::kFloat16) narrow<Float16>(out_float.data(), data, count);
        if (x.type == abi::kBFloat16) narrow<BFloat16>(out_float.data(), data, count);
      });
}

Op make_op(Kind kind, const char* name, std::vector<int> inputs) {
  Op op{};
  op.version = abi::kApiVersion;
  op.kind = kind;
  op.name = name;
  op.inputs = std::move(inputs);
  op.GetName = [](const OrtCustomOp* o) { return static_cast<const Op*>(o)->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* {
    return "CPUExecutionProvider";
  };
  op.GetInputType = [](const OrtCustomOp* o, size_t i) {
    return static_cast<const Op*>(o)->inputs[i];
  };
  op.GetInputTypeCount = [](const OrtCustomOp* o) {
    return static_cast<const Op*>(o)->inputs.size();
  };
  op.GetOutputType = [](const OrtCustomOp* o, size_t) {
    return static_cast<const Op*>(o)->inputs[0];
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputCharacteristic = op.GetOutputCharacteristic =
      op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = op.GetVariadicOutputMinArity =
      op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* p) { delete static_cast<State*>(p); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  return op;
}

// One op of each name per float type: onnxruntime takes the one whose types fit the node.
std::vector<Op> every_op() {
  std::vector<Op> ops;
  constexpr int i = abi::kInt64;
  for (int f : {abi::kFloat, abi::kFloat16, abi::kBFloat16}) {
    ops.push_back(make_op(Kind::kMonochromatic, "MonochromaticConv", {f, f, f, f, i}));
    ops.push_back(make_op(Kind::kTucker2, "Tucker2Conv", {f, i, f, f, i, f, f, i}));
    ops.push_back(make_op(Kind::kCp, "CPConv", {f, i, f, f, i, f, f, i}));
    ops.push_back(make_op(Kind::kLrn, "LRN", {f}));
  }
  return ops;
}

}  // namespace
}  // namespace onnx_lowrank

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const abi::OrtApiBase* base) {
  using namespace onnx_lowrank;
  const abi::OrtApi* api = base->GetApi(abi::kApiVersion);
  if (!api) {  // CreateStatus is slot 0 of every version
    const abi::OrtApi* oldest = base->GetApi(1);
    return oldest ? abi::CreateStatus(oldest)(
                        abi::kFail, "onnx_lowrank custom ops need onnxruntime 1.17 or newer")
                  : nullptr;
  }
  return guarded(
      api, [] { return std::string("onnx_lowrank: "); },
      [&] {
        selected_isa();
        static const std::vector<Op> ops = every_op();
        OrtCustomOpDomain* domain = nullptr;
        check(api, abi::CreateCustomOpDomain(api)("onnx_lowrank", &domain));
        for (const Op& op : ops) check(api, abi::CustomOpDomain_Add(api)(domain, &op));
        check(api, abi::AddCustomOpDomain(api)(options,
                                               domain));  // the domain lives as long as the process
      });
}
