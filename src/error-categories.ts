// Errors become events as one word of a closed list. Whatever is thrown, nothing of its text gets into the word:
// messages hold paths, tokens and addresses. The mappers take anything, follow causes, and never throw.

/** Why an upload failed. */
export const uploadFailureCategories = ['network_error', 'unauthorized', 'payload_too_large', 'storage_failure', 'unknown'] as const
export type UploadFailureCategory = (typeof uploadFailureCategories)[number]

/** Why a command failed. `commander` is a wrong command line; `interrupted` a signal, such as Ctrl-C. */
export const commandErrorCategories = [
  'network_error', 'timeout', 'unauthorized', 'forbidden', 'not_found', 'payload_too_large', 'rate_limited',
  'validation_error', 'server_error', 'commander', 'interrupted', 'unknown',
] as const
export type CommandErrorCategory = (typeof commandErrorCategories)[number]

/** Why a step of the builder's onboarding failed: first on iOS, then on Android. */
export const onboardingErrorCategories = [
  'apple_api_unauthorized', 'apple_api_forbidden', 'apple_agreements_missing', 'apple_api_rate_limited',
  'cert_limit_reached', 'profile_creation_failed', 'p8_invalid',
  'keychain_no_identities', 'keychain_export_failed', 'profile_no_match', 'profile_read_failed',
  'keystore_invalid', 'google_oauth_failed', 'play_account_id_invalid',
  'sa_json_shape_invalid', 'sa_json_token_rejected', 'sa_json_no_app_access', 'sa_json_network_error',
  'unknown',
] as const
export type OnboardingErrorCategory = (typeof onboardingErrorCategories)[number]

/** What came of asking for an AI analysis of a build. */
export const analysisResults = ['success', 'already_analyzed', 'too_big', 'error', 'mid_stream_error', 'upgrade_required'] as const
export type AnalysisResult = (typeof analysisResults)[number]

/**
 * Why an upload failed, from whatever the upload threw or answered. An error without any answer of the server's is a
 * `network_error`, unless it tells of a fault on this side of the network: then it is `unknown`.
 */
export function uploadFailureCategory(error: unknown): UploadFailureCategory {
  const facts = factsOf(error)
  const status = firstOf(facts, ({ status }) => status)
  if (status === 401 || status === 403) return 'unauthorized'
  if (status === 413) return 'payload_too_large'
  if (status !== undefined && status >= 500) return 'storage_failure'
  if (status !== undefined) return 'unknown'
  return facts.some(isLocalFault) && !facts.some(isNetworkFault) ? 'unknown' : 'network_error'
}

/** Why a command failed, from whatever it threw. */
export function commandErrorCategory(error: unknown): CommandErrorCategory {
  const facts = factsOf(error)
  return firstOf(facts, ({ code }) => (isMisuse(code) ? 'commander' : undefined))
    ?? firstOf(facts, ({ status }) => status === undefined ? undefined : categoryOfStatus(status))
    ?? firstOf(facts, ({ code, name }) => own(categoriesOfCodes, code) ?? own(categoriesOfNames, name))
    ?? firstOf(facts, ({ message }) => categoryOfMessage(message))
    ?? 'unknown'
}

/**
 * Why a step of the builder's onboarding failed, from whatever it threw. What the error says of itself goes first: an
 * HTTP status of Apple's, the `phase` or `kind` that it names. Then the step that it was thrown in.
 */
export function onboardingErrorCategory(
  error: unknown, during: { platform: 'ios' | 'android', step?: string },
): OnboardingErrorCategory {
  const facts = factsOf(error)
  return during.platform === 'ios' ? iosCategory(facts, during.step) : androidCategory(facts)
}

/**
 * What came of asking for an AI analysis, from what it threw or answered: a `Response`, or an error with a status.
 * Not from what the analysis says, which has no place in an event.
 */
export function analysisResult(outcome: unknown): AnalysisResult {
  const status = firstOf(factsOf(outcome), (fact) => fact.status)
  switch (status) {
    case 200: return 'success'
    case 409: return 'already_analyzed'
    case 413: return 'too_big'
    case 426: return 'upgrade_required'
    default: return 'error'
  }
}

/** The HTTP status behind an error of the AI analysis, 400 to 599; undefined where it has none. */
export function analysisErrorStatus(error: unknown): number | undefined {
  return firstOf(factsOf(error), ({ status }) => (status !== undefined && status >= 400 && status <= 599 ? status : undefined))
}

/** What can be known of one error in a chain without believing its text. */
type Facts = {
  /** An HTTP status, 100 to 599. */
  readonly status: number | undefined
  readonly code: string | undefined
  readonly name: string | undefined
  readonly phase: string | undefined
  readonly kind: string | undefined
  /** To be matched, and never to be told. */
  readonly message: string
}

// Errors of errors of errors: far more than any real chain has.
const MOST_ERRORS = 50

/** The facts of an error, its causes, its parts (`AggregateError`) and the answers it carries, the nearest first. */
function factsOf(error: unknown): Facts[] {
  const found = new Set([error])
  for (const one of found) {
    const inside = ['cause', 'context', 'response', 'originalResponse', 'error', 'reason'].map((key) => read(one, key))
    for (const next of [...inside, ...partsOf(one)]) {
      if (found.size < MOST_ERRORS && typeof next === 'object' && next !== null) found.add(next)
    }
  }
  return [...found].map((one) => ({
    status: statusOf(one),
    code: text(read(one, 'code')),
    name: text(read(one, 'name')),
    phase: text(read(one, 'phase')),
    kind: text(read(one, 'kind')),
    message: typeof one === 'string' ? one : text(read(one, 'message')) ?? '',
  }))
}

// Most say `status`; Supabase's Storage answers 400 and means `statusCode`; tus has a function; the database's own
// codes end in it.
function statusOf(error: unknown): number | undefined {
  const ofCode = /^PT([1-5]\d\d)$/.exec(text(read(error, 'code')) ?? '')?.[1]
  return [read(error, 'statusCode'), read(error, 'status'), call(error, 'getStatus'), ofCode]
    .filter((status) => typeof status === 'number' || typeof status === 'string')
    .map(Number)
    .find((status) => Number.isInteger(status) && status >= 100 && status <= 599)
}

// commander.error is what programs say of themselves; the other codes are about the command line.
function isMisuse(code: string | undefined): boolean {
  return code !== undefined && code.startsWith('commander.') && code !== 'commander.error'
}

function isNetworkFault({ code, name, message }: Facts): boolean {
  const category = own(categoriesOfCodes, code) ?? own(categoriesOfNames, name) ?? categoryOfMessage(message)
  return category === 'network_error' || category === 'timeout'
}

function isLocalFault({ code, name }: Facts): boolean {
  return /^(ENOENT|EACCES|EPERM|EISDIR|ENOTDIR|EMFILE|ENOSPC|EROFS|ERR_[A-Z_]+)$/.test(code ?? '')
    || ['TypeError', 'RangeError', 'ReferenceError', 'SyntaxError'].includes(name ?? '')
}

const categoriesOfCodes: { readonly [code: string]: CommandErrorCategory } = {
  ECONNREFUSED: 'network_error', ECONNRESET: 'network_error', ECONNABORTED: 'network_error', ENOTFOUND: 'network_error',
  EAI_AGAIN: 'network_error', EPIPE: 'network_error', ENETUNREACH: 'network_error', EHOSTUNREACH: 'network_error',
  ENETDOWN: 'network_error', ERR_NETWORK: 'network_error', ERR_SOCKET_CLOSED: 'network_error',
  UND_ERR_SOCKET: 'network_error', UND_ERR_CONNECT: 'network_error', network_error: 'network_error',
  ETIMEDOUT: 'timeout', ESOCKETTIMEDOUT: 'timeout', UND_ERR_CONNECT_TIMEOUT: 'timeout', UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout', UND_ERR_ABORTED: 'timeout', ABORT_ERR: 'timeout', timeout: 'timeout',
  PGRST301: 'unauthorized', '42501': 'forbidden', PGRST116: 'not_found', ENOENT: 'not_found', EACCES: 'forbidden', EPERM: 'forbidden',
  '22P02': 'validation_error', '23502': 'validation_error', '23503': 'validation_error', '23505': 'validation_error', '23514': 'validation_error',
}

const categoriesOfNames: { readonly [name: string]: CommandErrorCategory } = {
  TimeoutError: 'timeout', AbortError: 'timeout', AuthRetryableFetchError: 'network_error', FunctionsFetchError: 'network_error',
  StorageUnknownError: 'network_error', ZodError: 'validation_error', ValidationError: 'validation_error',
}

function categoryOfStatus(status: number): CommandErrorCategory | undefined {
  switch (status) {
    case 401: return 'unauthorized'
    case 403: return 'forbidden'
    case 404: return 'not_found'
    case 408: case 504: return 'timeout'
    case 413: return 'payload_too_large'
    case 429: return 'rate_limited'
    case 400: case 422: return 'validation_error'
    default: return status >= 500 ? 'server_error' : undefined
  }
}

function categoryOfMessage(message: string): CommandErrorCategory | undefined {
  if (/econnrefused|econnreset|enotfound|eai_again|fetch failed|failed to fetch|load failed|network|socket|\bdns\b/i.test(message)) return 'network_error'
  if (/timed? ?out|etimedout|aborted/i.test(message)) return 'timeout'
  if (/invalid|must be|required|not allowed|malformed|validation/i.test(message)) return 'validation_error'
  return undefined
}

// Apple blocks a sound key where an agreement is not signed; a chain may have lost all but the message.
const missingAgreement = [
  /required agreement[^.]{0,60}\b(unsigned|expired|missing|not been signed)\b/i,
  /\b(unsigned|expired)\b[^.]{0,40}\bagreement\b/i,
  /program license agreement/i,
]
const agreementCodes = ['FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED', 'FORBIDDEN_ERROR.PLA_NOT_ACCEPTED']

function iosCategory(facts: Facts[], step: string | undefined): OnboardingErrorCategory {
  if (facts.some(({ name }) => name === 'CertificateLimitError')) return 'cert_limit_reached'
  if (facts.some(({ code, message }) => agreementCodes.includes(code ?? '') || missingAgreement.some((sign) => sign.test(message)))) {
    return 'apple_agreements_missing'
  }
  return firstOf(facts, ({ status }) => own(categoriesOfApple, status))
    ?? firstOf(facts, ({ phase }) => own(categoriesOfIosPhases, phase))
    ?? own(categoriesOfIosSteps, step)
    ?? 'unknown'
}

function androidCategory(facts: Facts[]): OnboardingErrorCategory {
  return firstOf(facts, ({ name }) => (name === 'MissingScopesError' ? 'google_oauth_failed' : undefined))
    ?? firstOf(facts, ({ phase }) => own(categoriesOfAndroidPhases, phase))
    ?? firstOf(facts, ({ kind }) => own(categoriesOfAccountFaults, kind))
    ?? 'unknown'
}

const categoriesOfApple = { 401: 'apple_api_unauthorized', 403: 'apple_api_forbidden', 429: 'apple_api_rate_limited' } as const
const categoriesOfIosPhases = { profile: 'profile_creation_failed', p8: 'p8_invalid' } as const
const categoriesOfIosSteps = {
  'import-scanning': 'keychain_no_identities',
  'import-exporting': 'keychain_export_failed',
  'import-provide-profile-path': 'profile_read_failed',
  'import-pick-profile': 'profile_no_match',
  'import-no-match-recovery': 'profile_no_match',
} as const
const categoriesOfAndroidPhases = {
  keystore: 'keystore_invalid', oauth: 'google_oauth_failed', play_account_id: 'play_account_id_invalid',
} as const
const categoriesOfAccountFaults = {
  'shape-error': 'sa_json_shape_invalid', 'token-error': 'sa_json_token_rejected',
  'no-app-access': 'sa_json_no_app_access', 'network-error': 'sa_json_network_error',
} as const

function firstOf<T>(facts: Facts[], pick: (fact: Facts) => T | undefined): T | undefined {
  for (const fact of facts) {
    const picked = pick(fact)
    if (picked !== undefined) return picked
  }
  return undefined
}

function own<T>(table: { readonly [key: string]: T }, key: string | number | undefined): T | undefined {
  return key !== undefined && Object.hasOwn(table, key) ? table[key] : undefined
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function partsOf(error: unknown): unknown[] {
  const errors = read(error, 'errors')
  try {
    return Array.isArray(errors) ? errors.slice(0, MOST_ERRORS) : []
  } catch {
    return []
  }
}

// Errors have getters, and may be proxies: reading one may throw.
function read(value: unknown, key: string): unknown {
  try {
    return (value as Record<string, unknown> | null | undefined)?.[key]
  } catch {
    return undefined
  }
}

function call(value: unknown, method: string): unknown {
  try {
    return (value as Record<string, () => unknown> | null | undefined)?.[method]?.()
  } catch {
    return undefined
  }
}
