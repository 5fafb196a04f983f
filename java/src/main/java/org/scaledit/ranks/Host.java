package org.scaledit.ranks;

/**
 * One of several hosts, or of several processes of one host, whose ranks compute together.
 *
 * @param number which one this is, from 0
 * @param count how many there are
 * @param address name or IP address by which the others reach host 0
 * @param port TCP port at which host 0 listens, to all who reach it: for networks that are trusted
 * @throws IllegalArgumentException in one sentence, if a number is out of its range or there is no address
 */
public record Host(int number, int count, String address, int port) {
    private static final int MOST_PORT = 65_535;

    public Host {
        if (count < 1) {
            throw new IllegalArgumentException("number of hosts is " + count + ", expected 1 or more");
        }
        if (number < 0 || number >= count) {
            throw new IllegalArgumentException(
                    "host " + number + " of " + count + " is given, expected 0 to " + (count - 1));
        }
        if (address == null || address.isBlank()) {
            throw new IllegalArgumentException("address of host 0 is empty, expected a name or an IP address");
        }
        if (port < 1 || port > MOST_PORT) {
            throw new IllegalArgumentException("port of host 0 is " + port + ", expected 1 to " + MOST_PORT);
        }
    }

    boolean isFirst() {
        return number == 0;
    }

    @Override
    public String toString() {
        return name(number);
    }

    String name(int other) {
        return "host " + other + " of " + count;
    }
}
