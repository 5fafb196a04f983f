package org.scaledit.tensor;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.DeviceOptional;
import org.bytedeco.pytorch.MemoryFormatOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;

/**
 * Where a model's tensors live, and in which precision.
 *
 * @param cuda on this thread's GPU, the first one unless {@link Cuda#use} says another
 */
public record Placement(torch.ScalarType dtype, boolean cuda) {
    public static final Placement FLOAT32_CPU = new Placement(torch.ScalarType.Float, false);
    public static final Placement BFLOAT16_CPU = new Placement(torch.ScalarType.BFloat16, false);

    // JavaCPP leaks an option or device object that is made anew for every call.
    private static final Map<Placement, TensorOptions> OPTIONS = new ConcurrentHashMap<>();
    private static final Map<Boolean, Device> DEVICES = new ConcurrentHashMap<>();

    /** For factories such as {@code torch.empty}. Shared: never to be closed. */
    public TensorOptions options() {
        return OPTIONS.computeIfAbsent(
                this,
                placement -> Tensors.outlive(() -> new TensorOptions(dtype).device(new DeviceOptional(device()))));
    }

    /** Shared: never to be closed. */
    public Device device() {
        return DEVICES.computeIfAbsent(cuda, on -> Tensors.outlive(() -> new Device(on ? "cuda" : "cpu")));
    }

    /** The same place in another precision. */
    public Placement with(torch.ScalarType other) {
        return new Placement(other, cuda);
    }

    /** The same precision on the CPU. */
    public Placement onHost() {
        return new Placement(dtype, false);
    }

    /** What has another thread place tensors where this one does. */
    public Runnable shared() {
        if (!cuda) {
            return () -> {};
        }
        int gpu = Cuda.current();
        return () -> Cuda.use(gpu);
    }

    /**
     * A tensor of the host from where it is placed here most quickly: in page-locked memory, which a GPU copies by itself when
     * its queue comes to it. Torch keeps the memory until then, whoever closes the tensor meanwhile.
     */
    public Tensor atHand(Tensor tensor) {
        return cuda ? tensor.pin_memory() : tensor;
    }

    /**
     * The tensor here and in this precision; itself if it is so already. From the host to a GPU it goes when all has been
     * computed that is in the GPU's queue, and this waits for that, unless the tensor is {@link #atHand}.
     */
    public Tensor place(Tensor tensor) {
        return tensor.to(device(), dtype, cuda && tensor.is_pinned(), false, Layout.SAME);
    }

    /** {@link #place} of a tensor of the host by way of page-locked memory, {@link #atHand}: the GPU's queue is not waited for. */
    public Tensor send(Tensor tensor) {
        return place(atHand(tensor));
    }

    /** Made once libtorch is loaded. */
    private static final class Layout {
        static final MemoryFormatOptional SAME = Tensors.outlive(MemoryFormatOptional::new);
    }
}
