package org.scaledit.bindings;

import java.util.Objects;
import org.bytedeco.javacpp.annotation.Properties;
import org.jspecify.annotations.NullMarked;

/** The environment that native libraries of this process read; {@link System#getenv} gives a copy. */
@NullMarked
@Properties(inherit = org.scaledit.bindings.presets.ScaleDitCore.class)
public final class NativeEnvironment {
    private NativeEnvironment() {}

    /**
     * Sets a variable unless it is set. Processes that this one starts may inherit it. C does not lock the environment:
     * for a time when no other thread's native code reads it.
     *
     * @throws IllegalStateException if the native core cannot be loaded, as {@link NativeLibrary#load} says
     */
    public static void setIfAbsent(String name, String value) {
        Objects.requireNonNull(name, "name");
        Objects.requireNonNull(value, "value");
        NativeLibrary.load();
        if (setenv(name, value, 0) != 0) {
            throw new IllegalArgumentException(
                    "the environment variable \"" + name + "\" cannot be set, expected a name without \"=\"");
        }
    }

    /** The C library's. */
    private static native int setenv(String name, String value, int overwrite);
}
