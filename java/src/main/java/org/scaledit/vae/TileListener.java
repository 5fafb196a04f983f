package org.scaledit.vae;

/**
 * Hears of every finished tile, and of 0 finished tiles before the first. An exception that it throws ends the work and
 * reaches whoever asked for it.
 */
@FunctionalInterface
public interface TileListener {
    TileListener NONE = (finished, tiles) -> {};

    void onTiles(int finished, int tiles);
}
