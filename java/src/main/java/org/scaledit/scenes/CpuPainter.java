package org.scaledit.scenes;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.bindings.NativeLibrary;
import org.scaledit.bindings.SceneArguments;
import org.scaledit.bindings.SceneView;
import org.scaledit.bindings.SpriteView;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.Placement;

/** Paints with the thread that asks. Tensors alone need libtorch. */
final class CpuPainter implements Painter {
    private static final int ALIGNMENT = 64; // of the workspace

    /** Of a picture that is in native memory at a time. */
    private static final int BAND_BYTES = 4 << 20;

    CpuPainter() {
        NativeLibrary.load();
    }

    /** A copy: an array of Java's may be moved. */
    @Override
    public void describe(Sprites sprites, Sprites.Key key, Region needed, SpriteView view) {
        int[] argb = sprites.sprite(key).argb();
        IntPointer copy = new IntPointer((long) needed.rows() * needed.columns());
        for (int row = 0; row < needed.rows(); row++) {
            copy.position((long) row * needed.columns())
                    .put(argb, (needed.firstRow() + row) * key.side() + needed.firstColumn(), needed.columns());
        }
        view.argb(copy.position(0)).side(key.side());
        SceneRenderer.describe(needed, view.part());
    }

    @Override
    @SuppressWarnings("try") // the scope works by being open
    public void paint(SceneView scene, int pixels, Pointer output) {
        try (PointerScope scope = new PointerScope()) {
            long bytes = Painter.workspace(scene);
            BytePointer room = new BytePointer(bytes + ALIGNMENT);
            long misplaced = room.address() % ALIGNMENT;
            Status.check(scaledit_scene_paint(new SceneArguments()
                    .scene(scene)
                    .pixels(pixels)
                    .output(output)
                    .workspace(room.position(misplaced == 0 ? 0 : ALIGNMENT - misplaced))
                    .workspace_bytes(bytes)));
        }
    }

    @Override
    public byte[] bytes(SceneView scene) {
        int rowBytes = 3 * scene.part().columns();
        byte[] bytes = new byte[rowBytes * scene.part().rows()];
        int band = Math.max(1, BAND_BYTES / Math.max(1, rowBytes)) * rowBytes;
        BytePointer output = new BytePointer(Math.max(1L, Math.min(band, bytes.length)));
        int firstRow = scene.part().first_row();
        for (int done = 0; done < bytes.length; done += band) {
            int count = Math.min(band, bytes.length - done);
            scene.part().first_row(firstRow + done / rowBytes).rows(count / rowBytes);
            paint(scene, SCALEDIT_PIXELS_UINT8, output);
            output.get(bytes, done, count);
        }
        return bytes;
    }

    @Override
    public void close() {}

    @Override
    public Tensor empty(Region region) {
        return torch.empty(new long[] {3, region.rows(), region.columns()}, Placement.FLOAT32_CPU.options(), null);
    }
}
