/**
 * The SDK's chain of credentials, in a module of its own: a CommonJS package that is imported dynamically by its name
 * has no named exports in the executable.
 */
export { defaultProvider } from "@aws-sdk/credential-provider-node";
