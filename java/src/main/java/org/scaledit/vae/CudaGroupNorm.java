package org.scaledit.vae;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.javacpp.SizeTPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.bindings.CudaGroupNormArguments;
import org.scaledit.bindings.MatrixView;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.CoreViews;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Group normalisation and SiLU by the native core on an NVIDIA GPU, of a picture in bfloat16 whose channels lie side by side.
 * Queued on torch's current stream.
 */
final class CudaGroupNorm {
    private static final int CHANNEL_MULTIPLE = 8;
    private static final int MOST_CHANNELS = 1024;

    private CudaGroupNorm() {}

    /** Whether the core norms so many channels. */
    static boolean takes(int channels) {
        return channels % CHANNEL_MULTIPLE == 0 && channels <= MOST_CHANNELS;
    }

    /** @return like x, {@code [1, channels, h, w]}, in the caller's scope; x stays open */
    static Tensor normed(Tensor x, int groups, Tensor weight, Tensor bias, double epsilon, boolean silu) {
        if (x.dim() != 4 || x.size(0) != 1) {
            throw new IllegalArgumentException(
                    "a picture has shape " + Tensors.shape(x) + ", expected [1, channels, h, w]");
        }
        return Tensors.scoped(() -> {
            Tensor input = x.contiguous(torch.MemoryFormat.ChannelsLast);
            Tensor output = torch.empty_like(input);
            CudaGroupNormArguments arguments = new CudaGroupNormArguments()
                            .rows(input.size(2) * input.size(3))
                            .channels((int) input.size(1))
                            .groups(groups)
                            .epsilon((float) epsilon)
                            .silu(silu ? 1 : 0)
                            .weight(weight.data_ptr())
                            .bias(bias.data_ptr())
                            .stream(Cuda.currentStream());
            describe(input, arguments.input());
            describe(output, arguments.output());
            SizeTPointer bytes = new SizeTPointer(1);
            Status.check(scaledit_cuda_group_norm_workspace(arguments, bytes));
            Tensor room =
                    torch.empty(new long[] {bytes.get()}, new Placement(torch.ScalarType.Byte, true).options(), null);
            Status.check(scaledit_cuda_group_norm(
                    arguments.workspace(room.data_ptr()).workspace_bytes(bytes.get())));
            return output;
        });
    }

    private static void describe(Tensor picture, MatrixView view) {
        CoreViews.describe(picture, picture.size(1), view);
    }
}
