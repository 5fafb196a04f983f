package org.scaledit.vae;

import static org.scaledit.tensor.Tensors.scoped;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.image.PixelSource;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Placement;

/**
 * FLUX's autoencoder (diffusers' {@code AutoencoderKL}): pictures to latents of an eighth of the size and back. Pictures
 * beyond one tile of {@code sample_size} pixels are worked on tile by tile, blended as diffusers blends them, so that
 * memory is bounded by one tile's activations. Latents are raw here; see {@link Latents} for the transformer's form.
 */
public final class AutoencoderKl implements AutoCloseable {
    private final VaeConfig config;
    private final Placement placement;
    private final List<Layer> encoder;
    private final List<Layer> decoder;
    private final Weights source;
    private final Map<String, Tensor> weights = new HashMap<>();

    private AutoencoderKl(VaeConfig config, Placement placement, Weights source) {
        this.config = config;
        this.placement = placement;
        this.encoder = Architecture.encoder(config);
        this.decoder = Architecture.decoder(config);
        this.source = source;
        expectedTensors(config).forEach((name, shape) -> weights.put(name, Layer.laidOut(source.load(name, shape))));
    }

    /**
     * Loads an autoencoder from a folder with {@code config.json} and {@code diffusion_pytorch_model.safetensors}: the
     * {@code vae} folder of a checkpoint, or another of the same kind.
     *
     * @throws org.scaledit.checkpoint.CheckpointException if the folder does not hold exactly such a model
     */
    public static AutoencoderKl load(Path folder, Placement placement) {
        VaeConfig config = config(folder);
        Safetensors file = Safetensors.openModel(folder, "diffusion_pytorch_model");
        Weights source = Weights.of(file, placement);
        try {
            Weights.check(file, expectedTensors(config));
            return new AutoencoderKl(config, placement, source);
        } catch (RuntimeException | Error e) {
            source.close();
            throw e;
        }
    }

    /**
     * Refuses what {@link #load} would refuse, without reading a weight.
     *
     * @return the shape of the folder's autoencoder
     * @throws org.scaledit.checkpoint.CheckpointException if the folder does not hold exactly such a model
     */
    public static VaeConfig check(Path folder) {
        VaeConfig config = config(folder);
        openChecked(folder, config).close();
        return config;
    }

    private static VaeConfig config(Path folder) {
        return VaeConfig.of(Config.read(folder.resolve("config.json")));
    }

    private static Safetensors openChecked(Path folder, VaeConfig config) {
        Safetensors file = Safetensors.openModel(folder, "diffusion_pytorch_model");
        Weights.check(file, expectedTensors(config));
        return file;
    }

    /** The names and shapes of the tensors of such a model's file: these and no others. */
    public static Map<String, long[]> expectedTensors(VaeConfig config) {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        Architecture.encoder(config).forEach(layer -> layer.declare(shapes));
        Architecture.decoder(config).forEach(layer -> layer.declare(shapes));
        return shapes;
    }

    public VaeConfig config() {
        return config;
    }

    /**
     * Decodes a latent and hands out finished bands of the picture from the top to the bottom; the whole never exists.
     *
     * @param latent [latent channels, h, w], raw, any precision, any device; a GPU holds but a tile of one on the CPU
     */
    public void decode(Tensor latent, TileListener listener, BandConsumer sink) {
        tiles(latent).run(3, tile -> decoded(latent, tile), listener, sink);
    }

    /** Tiles of a latent for so many ranks to decode together, each with an autoencoder of its own. */
    public SharedTiles sharedTiles(Tensor latent, int ranks) {
        return new SharedTiles(tiles(latent), ranks);
    }

    /**
     * Decodes a latent with other ranks, which {@link #follow} at the same time. This one, rank 0, blends. Where all ranks
     * compute alike, the picture is, bit for bit, that of one.
     *
     * @param tiles of this latent
     * @throws org.scaledit.ranks.RanksStoppedException if another rank has failed
     * @throws java.util.concurrent.CancellationException if the thread is interrupted while it waits for another rank
     * @see #decode(Tensor, TileListener, BandConsumer)
     */
    public void decode(Tensor latent, SharedTiles tiles, Exchange exchange, TileListener listener, BandConsumer sink) {
        tiles.run(3, tile -> decoded(latent, tile), exchange, listener, sink);
    }

    /**
     * What a rank that is not the first one does for a latent's decoding; returns when no tile is left to begin.
     *
     * @throws org.scaledit.ranks.RanksStoppedException likewise
     * @throws java.util.concurrent.CancellationException likewise
     */
    public void follow(Tensor latent, SharedTiles tiles, Exchange exchange) {
        tiles.follow(tile -> decoded(latent, tile), exchange);
    }

    private Tiles tiles(Tensor latent) {
        requireShape(latent, config.latentChannels(), "latent");
        return new Tiles((int) latent.size(1), (int) latent.size(2), config.tileLatents(), config.sampleSize());
    }

    private Tensor decoded(Tensor latent, Tiles.Tile tile) {
        return run(decoder, tile.of(latent));
    }

    /** Decodes a latent to the whole picture: [3, 8h, 8w], float32 on the CPU, about −1 … 1 and not clamped. */
    public Tensor decode(Tensor latent, TileListener listener) { // [latent channels, h, w], raw
        return scoped(() -> {
            int scale = config.pixelsPerLatent();
            Tensor image = empty(3, latent.size(1) * scale, latent.size(2) * scale);
            decode(
                    latent,
                    listener,
                    (firstRow, band) -> image.narrow(1, firstRow, band.size(1)).copy_(band));
            return image;
        });
    }

    /**
     * Encodes a picture to the mean of its latents' distribution: [latent channels, height / 8, width / 8], raw, float32
     * on the CPU.
     *
     * @param image sides are multiples of 8
     */
    public Tensor encode(PixelSource image, TileListener listener) {
        int scale = config.pixelsPerLatent();
        if (image.height() < 1 || image.width() < 1 || image.height() % scale != 0 || image.width() % scale != 0) {
            throw new IllegalArgumentException("a picture of " + image.width() + " × " + image.height()
                    + " pixels cannot be encoded, expected sides that are multiples of " + scale);
        }
        Tiles tiles = new Tiles(image.height(), image.width(), config.sampleSize(), config.tileLatents());
        return scoped(() -> {
            Tensor latent = empty(config.latentChannels(), image.height() / scale, image.width() / scale);
            tiles.run(
                    config.latentChannels(),
                    tile -> run(encoder, image.region(tile.top(), tile.left(), tile.height(), tile.width()))
                            .narrow(0, 0, config.latentChannels()),
                    listener,
                    (firstRow, band) -> latent.narrow(1, firstRow, band.size(1)).copy_(band));
            return latent;
        });
    }

    /** Encodes a picture that is already there; see {@link #encode(PixelSource, TileListener)}. */
    public Tensor encode(Tensor image, TileListener listener) { // [3, 8h, 8w] -> [latent channels, h, w]
        requireShape(image, 3, "picture");
        return encode(PixelSource.of(image), listener);
    }

    @Override
    public void close() {
        weights.clear();
        source.close();
    }

    /** Layers over one tile, where the weights are and in their precision. */
    private Tensor run(List<Layer> layers, Tensor tile) { // [channels, h, w] -> [channels', h', w'] float32 on the CPU
        return scoped(() -> {
            Tensor output = Layer.run(layers, weights, placement.place(tile).unsqueeze(0));
            return Placement.FLOAT32_CPU.place(output).squeeze(0);
        });
    }

    private static void requireShape(Tensor tensor, int channels, String what) {
        if (tensor.dim() != 3 || tensor.size(0) != channels || tensor.numel() == 0) {
            throw new IllegalArgumentException("the " + what + " has shape " + Arrays.toString(tensor.shape())
                    + ", expected [" + channels + ", h, w]");
        }
    }

    private static Tensor empty(long... shape) {
        return torch.empty(shape, Placement.FLOAT32_CPU.options(), null);
    }
}
