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

namespace onnx_lowrank::avx2 {
namespace {
#include "vec_avx2.h"
}
#include "kernels.inl"
}  // namespace onnx_lowrank::avx2
