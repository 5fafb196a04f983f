package org.scaledit.scenes;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.bindings.CudaSceneArguments;
import org.scaledit.bindings.NativeLibrary;
import org.scaledit.bindings.SceneView;
import org.scaledit.bindings.SpriteView;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Paints on the GPU of the thread that asks, on torch's current stream. Sprites stay in the GPU's memory, those that were used
 * last: all threads of a GPU use the same stream, so that one which is let go may still be read by what is queued.
 */
final class CudaPainter implements Painter {
    /** Of sprites on each GPU: all 376 at 512 pixels, or sixteen at 4,096. */
    private static final long MOST_BYTES = 1L << 30;

    private static final Placement INTEGERS = new Placement(torch.ScalarType.Int, true);
    private static final Placement BYTES = new Placement(torch.ScalarType.Byte, true);
    private static final Placement FLOATS = new Placement(torch.ScalarType.Float, true);

    private record Held(int gpu, Sprites.Key key) {}

    private final Map<Held, Tensor> sprites = new LinkedHashMap<>(16, 0.75f, true);
    private final Map<Integer, Long> bytes = new LinkedHashMap<>(); // of each GPU's sprites

    private CudaPainter() {}

    /** @throws IllegalStateException in one sentence, if there is no GPU that it could use */
    static CudaPainter create() {
        Cuda.requireBuild(NativeLibrary.missingGpuArtifact());
        Cuda.load();
        NativeLibrary.load();
        try {
            Status.check(scaledit_cuda_supported(Cuda.current()));
        } catch (UnsupportedOperationException e) {
            throw new IllegalStateException("device cuda cannot be used: " + e.getMessage(), e);
        }
        return new CudaPainter();
    }

    @Override
    public void describe(Sprites from, Sprites.Key key, Region needed, SpriteView view) {
        // It stays until the call that reads it is queued.
        Tensor held = sprite(from, key);
        view.argb(new IntPointer(held.data_ptr())).side(key.side());
        SceneRenderer.describe(Region.whole(key.side()), view.part());
    }

    /** A handle in the caller's scope. Threads draw and upload beside each other; of two that meet, the first one's stays. */
    private Tensor sprite(Sprites from, Sprites.Key key) {
        Held held = new Held(Cuda.current(), key);
        synchronized (sprites) {
            Tensor there = sprites.get(held);
            if (there != null) {
                return Tensors.scoped(() -> there);
            }
        }
        Tensor made = upload(from.sprite(key));
        synchronized (sprites) {
            Tensor meanwhile = sprites.putIfAbsent(held, made);
            if (meanwhile != null) {
                made.close();
                return Tensors.scoped(() -> meanwhile);
            }
            long all = bytes.merge(held.gpu, size(key), Long::sum);
            Iterator<Map.Entry<Held, Tensor>> oldest = sprites.entrySet().iterator();
            while (all > MOST_BYTES && oldest.hasNext()) {
                Map.Entry<Held, Tensor> entry = oldest.next();
                if (entry.getKey().gpu == held.gpu && entry.getValue() != made) {
                    entry.getValue().close();
                    oldest.remove();
                    all = bytes.merge(held.gpu, -size(entry.getKey().key), Long::sum);
                }
            }
            return Tensors.scoped(() -> made);
        }
    }

    private static Tensor upload(Sprite sprite) {
        return Tensors.outlive(() -> {
            Tensor onHost = torch.empty(
                    new long[] {sprite.argb().length}, INTEGERS.onHost().options(), null);
            new IntPointer(onHost.data_ptr()).put(sprite.argb());
            return INTEGERS.place(onHost);
        });
    }

    private static long size(Sprites.Key key) {
        return 4L * key.side() * key.side();
    }

    @Override
    public void paint(SceneView scene, int pixels, Pointer output) {
        long room = Painter.workspace(scene);
        Tensor workspace = torch.empty(new long[] {Math.max(1, room)}, BYTES.options(), null);
        Status.check(scaledit_cuda_scene_paint(new CudaSceneArguments()
                        .scene(scene)
                        .pixels(pixels)
                        .output(output)
                        .workspace(workspace.data_ptr())
                        .workspace_bytes(room)
                        .stream(Cuda.currentStream())));
    }

    @Override
    public byte[] bytes(SceneView scene) {
        byte[] pixels = new byte[3 * scene.part().rows() * scene.part().columns()];
        if (pixels.length > 0) {
            Tensor output = torch.empty(new long[] {pixels.length}, BYTES.options(), null);
            paint(scene, SCALEDIT_PIXELS_UINT8, output.data_ptr());
            new BytePointer(BYTES.onHost().place(output).data_ptr()).get(pixels);
        }
        return pixels;
    }

    @Override
    public void close() {
        synchronized (sprites) {
            sprites.values().forEach(Tensor::close);
            sprites.clear();
            bytes.clear();
        }
    }

    @Override
    public Tensor empty(Region region) {
        return torch.empty(new long[] {3, region.rows(), region.columns()}, FLOATS.options(), null);
    }
}
