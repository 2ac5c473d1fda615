/** The same stores against MinIO. */
import { minioForTests, startMinio } from "../../scripts/servers/minio.ts";
import { type Flaws, s3Conformance } from "./s3_stores.ts";

const FLAWS: Flaws = {
  broken: {
    "tags of any letters are accepted": { how: "in ASCII only", message: /InvalidTag:/ },
    "nothing is listed under an empty component either": {
      how: "they are refused",
      message: /XMinioInvalidObjectName/,
    },
    "nothing is listed above a prefix": {
      how: "dots as a component are refused",
      message: /XMinioInvalidResourceName/,
    },
    "unfinished uploads are listed with their size, and can be removed": {
      how: "only those of one key",
      message: /0 !== 1/,
    },
    "who still works on an upload that is removed is told so": {
      how: "it is not found to be removed",
      message: /expected a rejection/,
    },
  },
};

const program = await minioForTests();
const start = program === null ? undefined : () => startMinio(program);

s3Conformance("MinIO", "plain", start, FLAWS);
s3Conformance("MinIO", "sdk", start, FLAWS);
