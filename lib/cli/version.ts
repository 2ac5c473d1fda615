/** The newest Barman release whose command-line behaviour ours follows; CloudNativePG compares it. */
export const COMPATIBILITY_VERSION = "3.21.0";

/** Our own version; the changelog tells what is in it. */
export const VERSION = "0.1.0";
