// A fuzzer of the ops as a runtime sees them. Bytes are decoded into a node of any op that is right
// but for a few changes, its kernel is made and run, for each instruction set. Nothing may trap or
// read or write outside of a tensor (the sanitizers say so), every failure is a status, and what
// two instruction sets both run must be equal. Of the emulated CUDA ops only the first half.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "../src/kernels.h"
#include "node_cases.h"

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const abi::OrtApiBase* base);

// What is registered is kept for as long as the process.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
  return "leak:RegisterCustomOps\n";
}

namespace {

using onnx_lowrank::Isa;

#ifdef ONNX_LOWRANK_EMULATED
const std::vector<Isa> kIsas = {{"", nullptr, [] { return true; }}};
constexpr int64_t kMostOutputs = 1 << 12;  // the emulation is slow
#else
const std::vector<Isa>& kIsas = onnx_lowrank::isas();
constexpr int64_t kMostOutputs = 1 << 18;
#endif

struct Counts {
  long inputs = 0, ran = 0, refused = 0, compared = 0;
  ~Counts() {
    std::printf("%ld inputs: %ld ran, %ld refused, %ld compared\n", inputs, ran, refused, compared);
  }
} counts;

struct Entry {
  const char* name;
  void (*draw)(Bytes&, const Drawn&, Case*);
};
constexpr Entry kEntries[] = {
#define ONNX_LOWRANK_OP(file, name, ...) {#name, node_cases::file},
#include "../src/ops.inc"
#undef ONNX_LOWRANK_OP
};

Case plausible(Bytes& in) {
  Case c;
  const Entry& entry = kEntries[in.byte() % std::size(kEntries)];
  c.op = entry.name;
  const int types[] = {abi::kFloat, abi::kFloat, abi::kFloat, abi::kFloat16, abi::kBFloat16};
  c.type = types[in.byte() % 5];
  c.constant = in.up_to(3) != 0;
  const size_t axes = std::array<size_t, 8>{1, 2, 2, 2, 2, 2, 2, 3}[in.byte() % 8];
  Drawn drawn;
  for (size_t i = 0; i < axes; ++i)
    drawn.size.push_back(in.between(1, axes == 3 ? 6 : i + 1 == axes ? 40 : 14));
  for (size_t i = 0; i < axes; ++i) drawn.kernel.push_back(in.between(1, 4));
  drawn.batch = in.between(1, 2);
  entry.draw(in, drawn, &c);
  return c;
}

// Of a map, any entry.
template <class M>
auto& any(Bytes& in, M& map) {
  return std::next(map.begin(), in.byte() % map.size())->second;
}

// What no exporter writes. Memory is real: an axis beyond it goes with an empty one.
void change(Bytes& in, Case* c) {
  const size_t i = in.byte() % c->inputs.size();
  OrtValue& v = *c->inputs[i];
  Shape shape = v.shape;
  switch (in.byte() % 10) {
    case 0:
      if (!c->info.integers.empty()) any(in, c->info.integers) = in.extreme();
      return;
    case 1:
    case 2:
      if (c->info.lists.empty()) {
        c->info.integers["size"] = in.extreme();
      } else {
        auto& list = any(in, c->info.lists);
        if (!list.empty()) list[in.byte() % list.size()] = in.extreme();
      }
      return;
    case 3: {
      const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -1e30f, 1e-40f};
      if (!c->info.reals.empty()) any(in, c->info.reals) = odd[in.up_to(5)];
      if (c->powers) c->conditioned = false;  // any exponent, and a base near zero
      return;
    }
    case 4:
      if (!c->info.lists.empty()) any(in, c->info.lists).resize(in.up_to(8), in.up_to(2));
      return;
    case 5:
      if (in.up_to(1) && !c->info.integers.empty())
        c->info.integers.erase(c->info.integers.begin());
      else if (!c->info.reals.empty())
        c->info.reals.erase(c->info.reals.begin());
      return;
    case 6:
      c->missing[i] = true;
      return;
    case 7: {  // another type of the same memory
      const int types[] = {abi::kFloat, abi::kInt64, abi::kFloat16, abi::kBFloat16};
      v = tensor(in, v.shape, types[in.up_to(3)]);
      return;
    }
    case 8:
      if (v.type == abi::kInt64 && !v.data.empty()) {
        const int64_t wrong = in.extreme();
        std::memcpy(&v.data[in.byte() % (v.data.size() / 8) * 8], &wrong, 8);
        return;
      }
      [[fallthrough]];
    default: {
      if (in.up_to(2) == 0)
        shape.resize(in.up_to(6), 1);
      else if (!shape.empty())
        shape[in.byte() % shape.size()] =
            in.up_to(1) ? std::max<int64_t>(0, in.extreme()) : in.up_to(20);
      int64_t count = 1;
      for (int64_t d : shape)
        if (__builtin_mul_overflow(count, d, &count)) count = INT64_MAX;
      if (count > 1 << 18) shape[in.byte() % shape.size()] = 0;
      // Of every weight alike, or only of one.
      v = tensor(in, shape, v.type);
    }
  }
}

struct Outcome {
  std::string message;  // of the status; none if it ran
  OrtValue y;
};

bool failed(OrtStatus* status, Outcome* out) {
  if (!status) return false;
  out->message = status->message;
  if (out->message.empty() || out->message.find('\n') != std::string::npos) std::abort();
  delete status;
  return true;
}

Outcome run(const OrtCustomOp& op, const Case& c) {
  Outcome out;
  OrtKernelInfo info = c.info;
  OrtKernelContext context;
  context.most_outputs = kMostOutputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    context.inputs.push_back(c.missing[i] ? nullptr : c.inputs[i].get());
    info.constants.push_back(i && c.constant ? context.inputs.back() : nullptr);
  }
  void* kernel = nullptr;
  if (failed(op.CreateKernelV2(&op, &fake::api, &info, &kernel), &out)) return out;
  for (int times = 0; times < 2; ++times)  // the second run takes the buffers of the first
    if (failed(op.KernelComputeV2(kernel, &context), &out)) break;
  op.KernelDestroy(kernel);
  out.y = std::move(context.output);
  return out;
}

std::vector<float> values(const OrtValue& v) {
  const int64_t n = v.data.size() / fake::element_bytes(v.type);
  std::vector<float> out(n);
  if (!n) return out;
  if (v.type == abi::kFloat) std::memcpy(out.data(), v.data.data(), 4 * n);
  if (v.type == abi::kFloat16)
    onnx_lowrank::widen<onnx_lowrank::Float16>(v.data.data(), out.data(), n);
  if (v.type == abi::kBFloat16)
    onnx_lowrank::widen<onnx_lowrank::BFloat16>(v.data.data(), out.data(), n);
  return out;
}

// Sums are exact; the slope, the power and one rounding to the type are not.
bool equal(const Outcome& a, const Outcome& b) {
  const auto x = values(a.y), y = values(b.y);
  if (a.y.shape != b.y.shape) return false;
  const float unit = a.y.type == abi::kFloat ? 1e-5f : a.y.type == abi::kFloat16 ? 2e-3f : 2e-2f;
  for (size_t i = 0; i < x.size(); ++i) {
    const float most = std::max(std::fabs(x[i]), std::fabs(y[i]));
    if (!std::isfinite(most) ? std::isfinite(x[i]) != std::isfinite(y[i])
                             : !(std::fabs(x[i] - y[i]) <= unit * most + 1e-30f))
      return false;
  }
  return true;
}

// Buffers differ between instruction sets, and so does what is too large.
bool for_memory(const Outcome& o) {
  for (const char* reason : {"out of memory", "no memory", "elements in one tensor or buffer"})
    if (o.message.find(reason) != std::string::npos) return true;
  return false;
}

const OrtCustomOp& op_of(const Case& c) {
  for (const OrtCustomOp* op : fake::domain.ops)
    if (op->GetName(op) == c.op && op->GetInputType(op, 0) == c.type) return *op;
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool registered = [] {
    setenv("ONNX_LOWRANK_CUDA_OPS", "all", 1);
    return RegisterCustomOps(nullptr, &fake::base) == nullptr;
  }();
  if (!registered) std::abort();
  Bytes in(data, size);
  Case c = plausible(in);
  c.missing.resize(c.inputs.size());
  for (int64_t i = in.up_to(3); i > 0; --i) change(in, &c);
  const OrtCustomOp& op = op_of(c);
  ++counts.inputs;
  Outcome first;
  for (const Isa& isa : kIsas) {
    if (!isa.runs()) continue;
    setenv("ONNX_LOWRANK_ISA", isa.name, 1);
    const Outcome now = run(op, c);
    if (&isa == &kIsas[0]) {
      first = now;
      ++(now.message.empty() ? counts.ran : counts.refused);
    } else if (first.message.empty() && now.message.empty()) {
      ++counts.compared;
      if (!c.conditioned || equal(first, now)) continue;
      std::fprintf(stderr, "%s: %s and %s differ\n", c.op.c_str(), kIsas[0].name, isa.name);
      std::abort();
    } else if (first.message != now.message && !for_memory(first) && !for_memory(now)) {
      std::fprintf(stderr, "%s: %s says '%s', %s says '%s'\n", c.op.c_str(), kIsas[0].name,
                   first.message.c_str(), isa.name, now.message.c_str());
      std::abort();
    }
  }
  return 0;
}
