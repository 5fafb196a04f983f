// What tests that need a GPU have in common.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "attention_reference.h"

namespace scaledit {

inline bool there_is_a_gpu() {
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

// Without a GPU there is nothing to run on; with one nothing is passed over, whatever the library says of it.
class Gpu : public testing::Test {
protected:
    void SetUp() override {
        if (!there_is_a_gpu()) {
            GTEST_SKIP() << "no GPU";
        }
    }
};

// Memory of the GPU: filled with what a forgotten store would leave, or a copy of the host's.
class DeviceMemory {
public:
    explicit DeviceMemory(std::size_t bytes) : bytes_(bytes) {
        EXPECT_EQ(cudaMalloc(&memory_, bytes), cudaSuccess);
        EXPECT_EQ(cudaMemset(memory_, static_cast<int>(kPoison), bytes), cudaSuccess);
    }
    explicit DeviceMemory(const std::vector<std::byte>& host) : DeviceMemory(host.size()) { write(host); }
    ~DeviceMemory() { cudaFree(memory_); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(memory_); }
    void write(const std::vector<std::byte>& host) const {
        EXPECT_EQ(cudaMemcpy(memory_, host.data(), bytes_, cudaMemcpyHostToDevice), cudaSuccess);
    }
    [[nodiscard]] std::vector<std::byte> read() const {
        std::vector<std::byte> host(bytes_);
        EXPECT_EQ(cudaMemcpy(host.data(), memory_, bytes_, cudaMemcpyDeviceToHost), cudaSuccess);
        return host;
    }

private:
    void* memory_ = nullptr;
    std::size_t bytes_;
};

// Captures what `calls` queues on a stream in a graph, and launches that.
template <class Calls>  // (cudaStream_t)
void run_by_graph(const Calls& calls, int launches = 1) {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    calls(stream);
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    for (int i = 0; i < launches; ++i) {
        EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}

// A tensor's memory on the GPU, and its view there. Of a fused buffer each tensor has a copy of its own, with the rows
// of the others beside its own.
struct DeviceCopy {
    explicit DeviceCopy(const Tensor& tensor) : host(tensor), memory(*tensor.memory) {}
    [[nodiscard]] scaledit_tensor view() const {
        scaledit_tensor tensor = host.view();
        tensor.data = memory.data() + (host.at(0, 0, 0) - host.memory->data());
        return tensor;
    }
    void poison() const {
        EXPECT_EQ(cudaMemset(memory.data(), static_cast<int>(kPoison), host.memory->size()), cudaSuccess);
    }
    Tensor host;
    DeviceMemory memory;
};

}  // namespace scaledit
