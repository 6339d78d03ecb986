// What real programs throw, for tests: each with text that must not get out.

/** Pieces of the text. */
export const secrets = ['/home/ada/projects/secret-app', 'AuthKey_9F3X.p8', 'hunter2', 'ada@acme.test', 'sb_secret_x9y8z7', 'eyJhbGciOiJIUzI1NiJ9', 'p4ssw0rd@db.internal']

/** A message as they come: a path, a file, a password, a person, a token, a key and a URL with credentials. */
export const text = `ENOENT: ${secrets[0]}/${secrets[1]} (${secrets[2]}) of ${secrets[3]}: Bearer ${secrets[5]}, key ${secrets[4]}, postgres://root:${secrets[6]}:5432/app`

/** An error of the onboarding, which is told by its name. */
export class CertificateLimitError extends Error {
  override readonly name = 'CertificateLimitError'
}

/** An error with fields of its own. */
export function withFields(fields: object, message = text, options?: ErrorOptions): Error {
  return Object.assign(new Error(message, options), fields)
}
