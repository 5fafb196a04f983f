#include "cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace scaledit::cpu {

void parallel_for(int threads, std::int64_t items, const std::function<void(std::int64_t item, int thread)>& body) {
    std::atomic<std::int64_t> next = 0;
    std::exception_ptr failure;
    std::once_flag failed;
    const auto work = [&](int thread) {
        try {
            for (std::int64_t item = next++; item < items; item = next++) {
                body(item, thread);
            }
        } catch (...) {
            std::call_once(failed, [&] { failure = std::current_exception(); });
            next = items;
        }
    };

    const auto helpers = static_cast<int>(std::min<std::int64_t>(threads, items)) - 1;
    {
        std::vector<std::jthread> others;  // joined at the end of this block
        try {
            for (int thread = 1; thread <= helpers; ++thread) {
                others.emplace_back(work, thread);
            }
        } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch): fewer threads do the same work
        } catch (const std::bad_alloc&) {     // NOLINT(bugprone-empty-catch)
        }
        work(0);
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

}  // namespace scaledit::cpu
