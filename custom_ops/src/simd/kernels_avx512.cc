#include "../kernels.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

namespace onnx_lowrank::avx512 {
namespace {
#include "vec_avx512.h"
}
#include "kernels.inl"
}  // namespace onnx_lowrank::avx512
