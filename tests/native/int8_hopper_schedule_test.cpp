// How the producer and the three warpgroups of attention_int8_hopper.cuh wait for each other, stepped on a CPU in
// random order: whatever the order, all of them reach the end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/device_geometry.h"
#include "geometry/geometry.h"
#include "geometry_view.h"

namespace scaledit {
namespace {

constexpr std::size_t kJobs = 2;  // groups that are announced at a time
constexpr std::uint32_t kAll = (1U << cuda::kGroupTiles) - 1;

// The groups of a block one after the other, their stages numbered through.
struct Jobs {
    explicit Jobs(const cuda::GroupLists& lists) : groups(lists.groups) {
        for (const cuda::TileGroup& group : groups) {
            first.push_back(successors.size());
            for (std::int32_t r = group.runs_first; r < group.runs_end; ++r) {
                const cuda::KeyRun& run = lists.runs[static_cast<std::size_t>(r)];
                for (std::int32_t i = 0; i < run.stages; ++i) {
                    successors.push_back(i + 1 < run.stages ? run.within : run.last);
                }
            }
        }
        first.push_back(successors.size());
    }

    std::vector<cuda::TileGroup> groups;
    std::vector<std::size_t> first;  // stage of each group, and the end
    std::vector<cuda::Successors> successors;
};

// What stands in shared memory.
struct Shared {
    Shared(const Jobs& all, std::size_t ring_stages)
        : jobs(all), ring(ring_stages), released(all.successors.size()), finished(all.groups.size()) {}

    const Jobs& jobs;
    const std::size_t ring;
    std::size_t announced = 0;                           // groups
    std::size_t filled = 0;                              // stages
    std::vector<std::uint32_t> released;                 // of each stage, bit i: by warpgroup i
    std::vector<int> finished;                           // of each group: warpgroups
    std::uint32_t turns[cuda::kGroupTiles] = {1, 0, 0};  // that each warpgroup was given
};

class Producer {
public:
    explicit Producer(Shared& shared) : s_(shared) {}

    // false: it waits, or is at the end.
    bool step() {
        const std::vector<std::size_t>& first = s_.jobs.first;
        if (s_.announced < s_.jobs.groups.size() && s_.filled == first[s_.announced] &&
            (s_.announced < kJobs || s_.finished[s_.announced - kJobs] == cuda::kGroupTiles)) {
            ++s_.announced;
            return true;
        }
        if (s_.filled < first[s_.announced] && (s_.filled < s_.ring || s_.released[s_.filled - s_.ring] == kAll)) {
            ++s_.filled;
            return true;
        }
        return false;
    }

private:
    Shared& s_;
};

class Warpgroup {
public:
    Warpgroup(Shared& shared, std::uint32_t number) : s_(shared), number_(number) {}

    bool at_end() const { return job_ == s_.jobs.groups.size(); }

    // false: it waits, or is at the end.
    bool step() {
        if (at_end()) {
            return false;
        }
        const cuda::TileGroup& group = s_.jobs.groups[job_];
        switch (next_) {
            case Next::kBegin:
                if (s_.announced <= job_) {
                    return false;
                }
                apart_ = group.apart[number_];
                left_ = group.whole[number_] + group.halves[number_];
                next_ = left_ > 0 ? Next::kTake : Next::kLeave;
                return true;
            case Next::kTake: {
                const bool apart = passed_ >= s_.jobs.first[job_] + static_cast<std::size_t>(group.together);
                const bool skips = apart && (apart_ & 1U) == 0;
                if (skips && holds_) {
                    release(held_);
                    holds_ = false;
                    return true;
                }
                if (passed_ >= s_.filled) {
                    return false;
                }
                if (apart) {
                    apart_ >>= 1U;
                }
                if (skips) {
                    release(passed_);
                } else {
                    now_ = passed_;
                    next_ = Next::kScores;
                }
                ++passed_;
                return true;
            }
            case Next::kScores:
                if (holds_) {
                    release(held_);
                    holds_ = false;
                }
                next_ = Next::kTurn;
                return true;
            case Next::kTurn:
                if (s_.turns[number_] <= taken_) {
                    return false;
                }
                ++taken_;
                ++s_.turns[s_.jobs.successors[now_] >> 2 * number_ & 3U];
                held_ = now_;
                holds_ = true;
                next_ = --left_ > 0 ? Next::kTake : Next::kFinish;
                return true;
            case Next::kFinish:
                release(held_);
                holds_ = false;
                next_ = Next::kLeave;
                return true;
            case Next::kLeave:
                if (passed_ < s_.jobs.first[job_ + 1]) {
                    if (passed_ >= s_.filled) {
                        return false;
                    }
                    release(passed_++);
                    return true;
                }
                ++s_.finished[job_++];
                next_ = Next::kBegin;
                return true;
        }
        return false;
    }

private:
    enum class Next { kBegin, kTake, kScores, kTurn, kFinish, kLeave };

    void release(std::size_t stage) { s_.released[stage] |= 1U << number_; }

    Shared& s_;
    const std::uint32_t number_;
    Next next_ = Next::kBegin;
    std::size_t job_ = 0;
    std::size_t passed_ = 0;  // stages
    std::uint64_t apart_ = 0;
    std::int32_t left_ = 0;  // stages of this job that its tile attends to
    std::uint32_t taken_ = 0;
    std::size_t now_ = 0;
    std::size_t held_ = 0;
    bool holds_ = false;
};

bool reaches_the_end(const Jobs& jobs, std::size_t ring, std::uint32_t seed) {
    std::mt19937 random(seed);
    Shared shared(jobs, ring);
    Producer producer(shared);
    Warpgroup warpgroups[cuda::kGroupTiles] = {{shared, 0}, {shared, 1}, {shared, 2}};
    int order[] = {0, 1, 2, 3};
    for (bool moved = true; moved;) {
        moved = false;
        std::shuffle(std::begin(order), std::end(order), random);
        for (const int one : order) {
            for (auto steps = 1 + random() % 6; steps > 0; --steps) {
                const bool stepped = one == cuda::kGroupTiles ? producer.step() : warpgroups[one].step();
                moved = moved || stepped;
                if (!stepped) {
                    break;
                }
            }
        }
    }
    return std::all_of(std::begin(warpgroups), std::end(warpgroups), [](const Warpgroup& w) { return w.at_end(); });
}

void expect_end(const Geometry& geometry, const scaledit_geometry_options& options) {
    const Jobs jobs(cuda::group_tiles(geometry));
    for (const std::size_t ring : {2, 4}) {
        for (const std::uint32_t seed : {1, 2, 3}) {
            EXPECT_TRUE(reaches_the_end(jobs, ring, seed)) << options << ", ring of " << ring;
        }
    }
}

TEST(Int8HopperSchedule, NeverLocks) {
    for (const auto& [width, height, text, ratio, margin] :
         {std::tuple{256, 256, 512, 4, 3},
          {37, 29, 77, 4, 3},
          {1, 1, 0, 4, 3},
          {64, 48, 512, 4, 3},
          {200, 7, 1, 2, 3},
          {9, 9, 0, 4, 3},
          {188, 313, 512, 4, 3},
          {200, 200, 3, 8, 3},
          {23, 31, 13, 0, 3},
          // Groups whose first query tile shares no two key tiles with others:
          {19, 19, 0, 4, 3},
          {53, 3, 0, 1, 0},
          {24, 20, 64, 0, 3}}) {
        for (const std::int32_t reach : {0, 1, 2, 3, 9}) {
            for (const std::int32_t guidance :
                 {SCALEDIT_GUIDANCE_GLOBAL, SCALEDIT_GUIDANCE_LOCAL, SCALEDIT_GUIDANCE_NONE}) {
                scaledit_geometry_options options = grid(width, height, text, ratio, 16, guidance);
                options.reach = reach;
                options.guidance_margin = margin;
                expect_end(Geometry(options), options);
            }
        }
    }
}

TEST(Int8HopperSchedule, NeverLocksInAShard) {
    for (const auto& [width, height, text, ratio] :
         {std::tuple{37, 29, 77, 4}, {64, 48, 0, 4}, {53, 35, 0, 1}, {40, 36, 64, 0}, {51, 51, 0, 8}}) {
        for (const std::int32_t reach : {0, 1, 2}) {
            for (const std::int32_t guidance : {SCALEDIT_GUIDANCE_GLOBAL, SCALEDIT_GUIDANCE_LOCAL}) {
                scaledit_geometry_options options = grid(width, height, text, ratio, 16, guidance);
                options.reach = reach;
                const Geometry whole(options);
                for (const std::int32_t shards : {2, 3}) {
                    for (std::int32_t index = 0; index < shards; ++index) {
                        SCOPED_TRACE("shard " + std::to_string(index) + " of " + std::to_string(shards));
                        expect_end(whole.shard(shards, index), options);
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace scaledit
