/** The same store through the AWS SDK. */
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { s3Conformance, VERSITYGW_FLAWS } from "./s3_stores.ts";

/** Says itself, loudly, why there is none and what would enable it. */
const server = await startS3ForTests();

s3Conformance(
  "S3",
  "sdk",
  server === null ? undefined : () => Promise.resolve(server),
  server?.kind === "versitygw" ? VERSITYGW_FLAWS : {},
);
