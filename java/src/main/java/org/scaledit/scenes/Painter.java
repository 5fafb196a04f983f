package org.scaledit.scenes;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.SizeTPointer;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.bindings.SceneView;
import org.scaledit.bindings.SpriteView;
import org.scaledit.bindings.Status;

/** Where the native core paints. Everything but tensors lies in the caller's scope. */
interface Painter extends AutoCloseable {
    /** Puts a sprite, or the part of it that is needed, where the core reads it. */
    void describe(Sprites sprites, Sprites.Key key, Region needed, SpriteView view);

    /** @param pixels a {@code scaledit_pixels}, which output has room for */
    void paint(SceneView scene, int pixels, Pointer output);

    /** The picture's pixels: red, green and blue of each, row by row. */
    byte[] bytes(SceneView scene);

    /** {@code [3, rows, columns]}, float32, in the caller's scope. */
    Tensor empty(Region region);

    @Override
    void close();

    /** Bytes of workspace that the core needs. */
    static long workspace(SceneView scene) {
        SizeTPointer bytes = new SizeTPointer(1);
        Status.check(scaledit_scene_workspace(scene, bytes));
        return bytes.get();
    }
}
