import { startS3ForTests } from "/work/main/scripts/servers/s3_for_tests.ts";
const s3 = await startS3ForTests();
if (s3 === null) Deno.exit(1);
await Deno.writeTextFile("/tmp/e2e/s3.env", "export TEST_S3_SHARED='" + s3.env["TEST_S3_SHARED"] + "'\n");
setTimeout(async () => { await s3.stop(); Deno.exit(0); }, 3 * 3600_000);
