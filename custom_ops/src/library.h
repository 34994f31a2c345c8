// The ops of the table as onnxruntime sees them: attributes and tensors in, statuses out. No
// exception crosses the ABI. A library of kernels for one provider is made of these functions and
//   struct P {
//     using K;                                   Kernel, or what a GPU has for it
//     static constexpr const char* kProvider;    onnxruntime's name of it
//     static constexpr const char* kWhere;       what messages add to the name of a node
//     static constexpr int kWeightMemory;        where weights are wanted: an OrtMemType
//     static void check_memory(api, value, weight);
//     static void run(K&, api, context, shapes, x, y);
//   };
#pragma once
#include <limits>

#include "describe.h"

namespace onnx_lowrank {

// A line of the table of ops.
template <class K>
struct Entry {
  const char* name;
  bool on_cuda;  // registered there by default
  const char* inputs;
  std::unique_ptr<Node<K>> (*read)(const Attributes& a);
};

// The element types of "X colours order:int64", where the others are `type`.
inline std::vector<int> types_of(const std::string& inputs, int type) {
  std::vector<int> types;
  for (size_t from = 0; from < inputs.size();) {
    const size_t to = std::min(inputs.find(' ', from), inputs.size());
    const bool whole = inputs.substr(from, to - from).find(":int64") != std::string::npos;
    types.push_back(whole ? static_cast<int>(abi::kInt64) : type);
    from = to + 1;
  }
  return types;
}

template <class P>
struct Op : OrtCustomOp {
  const Entry<typename P::K>* entry;
  std::vector<int> types;  // of the inputs
};

template <class P>
struct State {
  const Op<P>* op;
  const OrtApi* api;
  std::string name;
  std::unique_ptr<Node<typename P::K>> node;
  Built<typename P::K> fixed;  // without a kernel unless all weights are constant

  std::string where() const {
    return std::string(op->entry->name) + " '" + name + "'" + P::kWhere + ": ";
  }
  Tensor weight(const OrtValue* value) const {
    P::check_memory(api, value, true);
    return tensor(api, value);
  }
};

template <class P>
OrtStatus* create(const OrtCustomOp* base, const OrtApi* api, const OrtKernelInfo* info,
                  void** out) noexcept {
  auto op = static_cast<const Op<P>*>(base);
  std::unique_ptr<State<P>> s;
  auto where = [&] { return s ? s->where() : std::string(op->entry->name) + P::kWhere + ": "; };
  return guarded(api, where, [&] {
    s = std::make_unique<State<P>>();
    s->op = op;
    s->api = api;
    s->name = node_name(api, info);
    s->node = op->entry->read(Attributes{api, info});
    std::vector<Tensor> w;
    for (size_t i = 1; i < op->types.size(); ++i) {
      int constant = 0;
      const OrtValue* v = nullptr;
      check(api, abi::KernelInfoGetConstantInput_tensor(api)(info, i, &constant, &v));
      if (!constant) break;
      w.push_back(s->weight(v));
    }
    if (w.size() + 1 == op->types.size()) s->fixed = s->node->build(s->node->image(w), w);
    *out = s.release();
  });
}

template <class P>
OrtStatus* compute(void* self, OrtKernelContext* context) noexcept {
  auto s = static_cast<State<P>*>(self);
  const OrtApi* api = s->api;
  std::vector<int64_t> shape_x, shape_y;  // once they are known, for messages
  auto where = [&] {
    return shape_x.empty() ? s->where()
                           : s->where() + "X " + text(shape_x) + ", Y " + text(shape_y) + ": ";
  };
  return guarded(api, where, [&] {
    auto input = [&](size_t i) {
      const OrtValue* v = nullptr;
      check(api, abi::KernelContext_GetInput(api)(context, i, &v));
      return v;
    };
    const OrtValue* x_value = input(0);
    P::check_memory(api, x_value, false);
    const Tensor x = tensor(api, x_value);
    Built<typename P::K> own;  // of weights that are no constants: for one run
    const Built<typename P::K>* built = &s->fixed;
    if (!built->kernel) {
      std::vector<Tensor> w;
      for (size_t i = 1; i < s->op->types.size(); ++i) w.push_back(s->weight(input(i)));
      own = s->node->build(x.shape, w);
      built = &own;
    }
    const Shapes shapes = built->shapes(x.shape);
    void* y = output(api, context, shapes.y);
    if (shapes.y_count == 0) return;
    shape_x = x.shape;
    shape_y = shapes.y;
    P::run(*built->kernel, api, context, shapes, x, y);
  });
}

template <class P>
Op<P> make_op(const Entry<typename P::K>* entry, int type) {
  using O = Op<P>;
  O op{};
  op.version = abi::kApiVersion;
  op.entry = entry;
  op.types = types_of(entry->inputs, type);
  op.GetName = [](const OrtCustomOp* o) { return static_cast<const O*>(o)->entry->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return P::kProvider; };
  op.GetInputType = [](const OrtCustomOp* o, size_t i) {
    return static_cast<const O*>(o)->types[i];
  };
  op.GetInputTypeCount = [](const OrtCustomOp* o) {
    return static_cast<const O*>(o)->types.size();
  };
  op.GetOutputType = [](const OrtCustomOp* o, size_t) {
    return static_cast<const O*>(o)->types[0];
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputCharacteristic =
      op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t i) {
    return i ? P::kWeightMemory : static_cast<int>(abi::kDeviceMemory);
  };
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = op.GetVariadicOutputMinArity =
      op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = create<P>;
  op.KernelComputeV2 = compute<P>;
  op.KernelDestroy = [](void* p) { delete static_cast<State<P>*>(p); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  return op;
}

// One op for each float type: onnxruntime takes the one whose types fit the node.
template <class P>
std::vector<Op<P>> for_every_type(const std::vector<const Entry<typename P::K>*>& entries) {
  std::vector<Op<P>> ops;
  for (const auto* entry : entries)
    for (int type : {abi::kFloat, abi::kFloat16, abi::kBFloat16})
      ops.push_back(make_op<P>(entry, type));
  return ops;
}

// Registers what ops() gives, which must live as long as any session.
template <class P, class Ops>
OrtStatus* register_ops(OrtSessionOptions* options, const abi::OrtApiBase* base, const Ops& ops) {
  const OrtApi* api = base->GetApi(abi::kApiVersion);
  if (!api) {  // CreateStatus is slot 0 of every version
    const OrtApi* oldest = base->GetApi(1);
    return oldest ? abi::CreateStatus(oldest)(
                        abi::kFail, "onnx_lowrank custom ops need onnxruntime 1.17 or newer")
                  : nullptr;
  }
  auto where = [] { return std::string("onnx_lowrank") + P::kWhere + ": "; };
  return guarded(api, where, [&] {
    const std::vector<Op<P>>& made = ops();
    OrtCustomOpDomain* domain = nullptr;
    check(api, abi::CreateCustomOpDomain(api)("onnx_lowrank", &domain));
    for (const Op<P>& op : made) check(api, abi::CustomOpDomain_Add(api)(domain, &op));
    // The domain lives as long as the process.
    check(api, abi::AddCustomOpDomain(api)(options, domain));
  });
}

}  // namespace onnx_lowrank
