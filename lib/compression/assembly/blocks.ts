/**
 * LZ4's and snappy's block formats, with the checksums of their frames, in AssemblyScript: WebAssembly is twice to three
 * times as fast here as the same in JavaScript, from the first call on. `scripts/wasm.ts` compiles this into
 * ../blocks_wasm.ts. Whoever calls (../blocks.ts) lays out the memory, and leaves SLACK bytes of no meaning behind each
 * region.
 */
export { crc32c, prepareCrc32c, xxHash32Stripes } from "./checksums";
export { compressLz4, decompressLz4 } from "./lz4";
export { compressSnappy, decompressSnappy } from "./snappy";
