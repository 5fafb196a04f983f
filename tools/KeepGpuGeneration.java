import java.io.IOException;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Fills with zeros the machine code that a library carries for every generation of GPUs but one, so that it packs to a
 * fraction of its size: {@code java KeepGpuGeneration.java 90 libtorch_cuda.so}. Headers stay, the library loads as
 * before.
 */
final class KeepGpuGeneration {
    private static final int ELF_SECTION_TABLE = 0x28;
    private static final int ELF_SECTION_SIZES = 0x3A; // of an entry, number of entries, entry of the names
    private static final int SECTION_OFFSET = 0x18;
    private static final int SECTION_SIZE = 0x20;

    /** A fatbin: magic number, version, 16 bits of header's size, 64 bits of contents' size. */
    private static final int FATBIN_MAGIC = 0xBA55ED50;

    /** In the header of an entry of a fatbin: header's size, contents' size, compute capability. */
    private static final int ENTRY_HEADER = 4;

    private static final int ENTRY_SIZE = 8;
    private static final int ENTRY_GENERATION = 28;

    public static void main(String[] arguments) throws IOException {
        int generation = Integer.parseInt(arguments[0]);
        Path library = Path.of(arguments[1]);
        try (FileChannel file = FileChannel.open(library, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer bytes = file.map(FileChannel.MapMode.READ_WRITE, 0, file.size());
            bytes.order(ByteOrder.LITTLE_ENDIAN);
            long kept = keep(bytes, generation);
            if (kept == 0) {
                throw new IOException(library + " has no code for compute capability " + generation);
            }
            bytes.force();
        }
    }

    /** Bytes of code that are left. */
    private static long keep(MappedByteBuffer bytes, int generation) {
        long kept = 0;
        int header = Math.toIntExact(bytes.getLong(ELF_SECTION_TABLE));
        int size = bytes.getShort(ELF_SECTION_SIZES);
        int sections = bytes.getShort(ELF_SECTION_SIZES + 2);
        int names = offset(bytes, header + size * bytes.getShort(ELF_SECTION_SIZES + 4));
        for (int i = 0; i < sections; i++) {
            int section = header + size * i;
            if (name(bytes, names + bytes.getInt(section)).equals(".nv_fatbin")) {
                int first = offset(bytes, section);
                kept += keep(bytes, first, first + Math.toIntExact(bytes.getLong(section + SECTION_SIZE)), generation);
            }
        }
        return kept;
    }

    private static long keep(MappedByteBuffer bytes, int first, int end, int generation) {
        long kept = 0;
        int at = first;
        while (at + 16 <= end) {
            if (bytes.getInt(at) != FATBIN_MAGIC) {
                at += 8; // what aligns the next one
                continue;
            }
            int entry = at + bytes.getShort(at + 6);
            at = Math.toIntExact(entry + bytes.getLong(at + 8));
            while (entry < at) {
                int code = entry + bytes.getInt(entry + ENTRY_HEADER);
                int length = Math.toIntExact(bytes.getLong(entry + ENTRY_SIZE));
                if (bytes.getInt(entry + ENTRY_GENERATION) == generation) {
                    kept += length;
                } else {
                    bytes.put(code, new byte[length]);
                }
                entry = code + length;
            }
        }
        return kept;
    }

    private static int offset(MappedByteBuffer bytes, int section) {
        return Math.toIntExact(bytes.getLong(section + SECTION_OFFSET));
    }

    private static String name(MappedByteBuffer bytes, int at) {
        StringBuilder name = new StringBuilder();
        for (int i = at; bytes.get(i) != 0; i++) {
            name.append((char) bytes.get(i));
        }
        return name.toString();
    }
}
