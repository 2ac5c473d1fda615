/** S3 through the AWS SDK: access points, directory buckets, FIPS and dual-stack endpoints, other partitions. */
import { defaultProvider } from "@aws-sdk/credential-provider-node";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { HttpRequest, HttpResponse } from "@smithy/core/protocols";
import { collectAnswer } from "./answer.ts";
import { isPage, PageError, type S3Api } from "./api.ts";
import type { S3Config } from "./config.ts";
import { credentialOptions } from "./credentials.ts";
import type { HttpHandler } from "./http_handler.ts";

export function openSdkApi(
  config: S3Config,
  region: () => Promise<string>,
  handler: HttpHandler,
): S3Api {
  const client = new S3Client({
    region,
    requestHandler: handler,
    streamCollector: collectAnswer,
    // Retrying is done by one wrapper for all stores.
    maxAttempts: 1,
    credentials: config.environmentKeys ?? defaultProvider(credentialOptions(config, handler)),
    forcePathStyle: config.forcePathStyle,
    requestChecksumCalculation: config.requestChecksums,
    responseChecksumValidation: config.responseChecksums,
    // Costs a round trip, and some stores never answer it. The handler reads early refusals anyway.
    expectContinueHeader: false,
    ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
    ...(config.profile === undefined ? {} : { profile: config.profile }),
  });
  leaveChecksummedBodiesUnsigned(client);
  refusePages(client);
  return {
    createBucket: (input, options) => client.send(new CreateBucketCommand(input), options),
    headBucket: (input, options) => client.send(new HeadBucketCommand(input), options),
    listObjectsV2: (input, options) => client.send(new ListObjectsV2Command(input), options),
    headObject: (input, options) => client.send(new HeadObjectCommand(input), options),
    getObject: (input, options) => client.send(new GetObjectCommand(input), options),
    async putObject({ Body, ...input }, options) {
      // The SDK would read a stream once only.
      const bytes = Body instanceof Uint8Array
        ? Body
        : Buffer.concat(await Array.fromAsync(Body.read(), (chunk) => new Uint8Array(chunk)));
      return await client.send(new PutObjectCommand({ ...input, Body: bytes }), options);
    },
    createMultipartUpload: (input, options) =>
      client.send(new CreateMultipartUploadCommand(input), options),
    uploadPart: (input, options) => client.send(new UploadPartCommand(input), options),
    completeMultipartUpload: (input, options) =>
      client.send(new CompleteMultipartUploadCommand(input), options),
    abortMultipartUpload: (input, options) =>
      client.send(new AbortMultipartUploadCommand(input), options),
    listParts: (input, options) => client.send(new ListPartsCommand(input), options),
    listMultipartUploads: (input, options) =>
      client.send(new ListMultipartUploadsCommand(input), options),
    deleteObject: (input, options) => client.send(new DeleteObjectCommand(input), options),
    deleteObjects: (input, options) => client.send(new DeleteObjectsCommand(input), options),
    close: () => client.destroy(),
  };
}

/**
 * Over TLS the body's checksum (CRC-32 in a signed header) is protection enough; the SHA-256 of every
 * body for the signature would be most of the CPU time of an upload.
 */
function leaveChecksummedBodiesUnsigned(client: S3Client): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { request } = args;
      if (
        HttpRequest.isInstance(request) && request.protocol === "https:" &&
        request.body instanceof Uint8Array &&
        Object.keys(request.headers).some((name) => /^x-amz-checksum-/i.test(name))
      ) {
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
      }
      return next(args);
    },
    // After the checksum, before the signature.
    { step: "build", priority: "low", name: "leaveChecksummedBodiesUnsigned" },
  );
}

/**
 * The SDK takes the page of a login or of another server for an answer without anything in it: an empty listing, a
 * deletion that went well. Objects may be pages; their answers are known by their ETag.
 */
function refusePages(client: S3Client): void {
  client.middlewareStack.add(
    (next, { commandName }) => async (args) => {
      const result = await next(args);
      const { response } = result;
      if (
        HttpResponse.isInstance(response) && response.statusCode < 300 &&
        isPage(response.headers) &&
        commandName !== "GetObjectCommand" && commandName !== "HeadObjectCommand"
      ) throw new PageError(`HTTP ${response.statusCode}, ${response.headers["content-type"]}`);
      return result;
    },
    { step: "deserialize", name: "refusePages" },
  );
}
