// How many tasks a run makes.
#pragma once
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "vector.h"

namespace onnx_lowrank {

// The session does not tell its number of threads. So the first runs, and now and then a later one,
// make as many tasks as the machine has threads and count who takes part; the others make tasks for
// the most that were ever seen.
class Threads {
 public:
  struct Plan {
    int count;
    bool explores;
  };
  Plan plan() {
    static const int most =
        static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 64u));
    const unsigned run = runs_++;
    return run < 16 || run % 16 == 0 ? Plan{most, most > 1} : Plan{seen_.load(), false};
  }
  void run(const Plan& plan, const ParallelFor& parallel, size_t tasks,
           const std::function<void(size_t)>& body) {
    if (!plan.explores) return parallel(tasks, body);
    std::mutex mutex;
    std::set<std::thread::id> ids;
    parallel(tasks, [&](size_t i) {
      {
        std::lock_guard<std::mutex> lock(mutex);
        ids.insert(std::this_thread::get_id());
      }
      body(i);
    });
    for (int old = seen_, now = static_cast<int>(ids.size());
         old < now && !seen_.compare_exchange_weak(old, now);) {
    }
  }

 private:
  std::atomic<unsigned> runs_{0};
  std::atomic<int> seen_{1};
};

// Output rows per task: as many as `most`, in equal tasks, at least one task per thread.
inline int64_t strip_rows(int64_t rows, int64_t most, int64_t others, int threads) {
  most = std::max<int64_t>(1, std::min(most, rows));
  int64_t tasks = ceil_div(rows, most);
  if (threads > 1) {
    tasks = std::max(tasks, std::min(rows, ceil_div(threads, others)));
    if (others % threads) tasks = std::min(rows, round_up(tasks, threads));
  }
  return ceil_div(rows, tasks);
}

}  // namespace onnx_lowrank
