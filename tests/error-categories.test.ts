import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  analysisErrorStatus, analysisResult, analysisResults, commandErrorCategories, commandErrorCategory, onboardingErrorCategories,
  onboardingErrorCategory, uploadFailureCategories, uploadFailureCategory,
} from '../src/error-categories.ts'
import { freePort } from '../src/postgres.ts'
import { orgs } from './demo.ts'
import { CertificateLimitError, secrets, text, withFields } from './thrown.ts'
import { createWorld, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const throwing = new Proxy({}, { get() { throw new Error(text) } })
const looped = withFields({})
looped.cause = looped
class Endless {
  get cause() { return new Endless() }
}

describe('an upload\'s failure', () => {
  const errors: [name: string, category: string, error: unknown][] = [
    ['a 401 of tus', 'unauthorized', withFields({ originalResponse: { getStatus: () => 401, getBody: () => text } })],
    ['a 403 of Supabase\'s Storage', 'unauthorized', withFields({ name: 'StorageApiError', status: 400, statusCode: '403' })],
    ['a 403', 'unauthorized', { status: 403, message: text }],
    ['a Response with 413', 'payload_too_large', new Response(text, { status: 413 })],
    ['a 413 of axios', 'payload_too_large', withFields({ code: 'ERR_BAD_REQUEST', response: { status: 413, data: text } })],
    ['a 500', 'storage_failure', withFields({ status: 500 })],
    ['a 599 of tus', 'storage_failure', { originalResponse: { getStatus: () => 599 } }],
    ['a 404', 'unknown', withFields({ statusCode: 404 })],
    ['a 418 behind two causes', 'unknown', withFields({}, text, { cause: withFields({}, text, { cause: { status: 418 } }) })],
    ['a 503 among many', 'storage_failure', new AggregateError([withFields({ code: 'EIO' }), { status: 503 }], text)],
    ['tus without an answer', 'network_error', withFields({ originalRequest: {}, originalResponse: null })],
    ['tus with the status 0', 'network_error', { originalResponse: { getStatus: () => 0 } }],
    ['a reset connection', 'network_error', withFields({ code: 'ECONNRESET' })],
    ['a fetch that failed', 'network_error', new TypeError('fetch failed', { cause: withFields({ code: 'ENOTFOUND', hostname: 'db.internal' }) })],
    ['a browser\'s fetch that failed', 'network_error', new TypeError('Failed to fetch')],
    ['a fetch that was given up', 'network_error', new DOMException('This operation was aborted', 'AbortError')],
    ['an error without anything', 'network_error', new Error(text)],
    ['a missing file', 'unknown', withFields({ code: 'ENOENT', path: secrets[0] })],
    ['a mistake in the program', 'unknown', new RangeError(text)],
    ['a string', 'network_error', text],
    ['nothing', 'network_error', undefined],
  ]
  test.each(errors)('is, of %s, %s', (_, category, error) => {
    expect(uploadFailureCategory(error)).toBe(category)
  })
})

describe('a command\'s error', () => {
  const errors: [name: string, category: string, error: unknown][] = [
    ['a wrong flag', 'commander', withFields({ code: 'commander.unknownOption', exitCode: 1 })],
    ['what a program says of itself', 'unknown', withFields({ code: 'commander.error', exitCode: 1 }, 'No luck')],
    ['a 401', 'unauthorized', withFields({ status: 401 })],
    ['a 401 of the database', 'unauthorized', withFields({ code: 'PT401', details: text, hint: text }, 'unauthenticated')],
    ['a policy of the database', 'forbidden', withFields({ code: '42501', details: text, hint: null })],
    ['a 404 Response', 'not_found', new Response(text, { status: 404 })],
    ['an edge function\'s 504', 'timeout', withFields({ name: 'FunctionsHttpError', context: new Response(text, { status: 504 }) })],
    ['a 413', 'payload_too_large', { statusCode: '413' }],
    ['a 429', 'rate_limited', { status: 429 }],
    ['a 422', 'validation_error', { status: 422 }],
    ['a 503', 'server_error', { status: 503 }],
    ['a 418', 'unknown', withFields({ status: 418 }, 'I am a teapot')],
    ['a refused connection', 'network_error', new AggregateError([withFields({ code: 'ECONNREFUSED' }), withFields({ code: 'ECONNREFUSED' })])],
    ['a refused connection, told', 'network_error', new Error('fetch failed: ECONNREFUSED')],
    ['a timeout of undici', 'timeout', new TypeError('fetch failed', { cause: withFields({ code: 'UND_ERR_HEADERS_TIMEOUT' }) })],
    ['a timeout', 'timeout', new DOMException('', 'TimeoutError')],
    ['a timeout, told', 'timeout', new Error('The operation timed out')],
    ['a value that is not valid, told', 'validation_error', new Error('Invalid app id format')],
    ['an error that loops', 'unknown', looped],
    ['an error with causes without end', 'unknown', new Endless()],
    ['an error that throws when it is read', 'unknown', throwing],
    ['an error with an inherited name for a code', 'unknown', { code: 'constructor', name: '__proto__' }],
    ['something else', 'unknown', new Error(`something weird in ${secrets[0]}`)],
    ['nothing', 'unknown', undefined],
  ]
  test.each(errors)('is, of %s, %s', (_, category, error) => {
    expect(commandErrorCategory(error)).toBe(category)
  })

  test('is what a real fetch and a real API answer', async () => {
    const closed = await fetch(`http://127.0.0.1:${await freePort()}/`).catch((error: unknown) => error)
    const { error: unknownKey } = await world.withKey('as_local_unknown').rpc('track_event', { v2: { event: 'E' } })
    const { error: outsider } = await world.withKey('as_local_demo_app').rpc('track_event', { v2: { event: 'E', tracking_version: 2, org_id: orgs.acme } })
    const { error: wrongPassword } = await world.anon().auth.signInWithPassword({ email: 'ada@acme.test', password: 'wrong' })
    expect([closed, unknownKey, outsider, wrongPassword].map(commandErrorCategory))
      .toEqual(['network_error', 'unauthorized', 'forbidden', 'validation_error'])
    expect(uploadFailureCategory(closed)).toBe('network_error')
  })
})

describe('an error of the onboarding', () => {
  const errors: [name: string, category: string, error: unknown, platform: 'ios' | 'android', step?: string][] = [
    ['a 401 of Apple\'s', 'apple_api_unauthorized', withFields({ status: 401 }), 'ios', 'import-scanning'],
    ['a 403 of Apple\'s', 'apple_api_forbidden', withFields({ status: 403 }, 'your team agreement role is insufficient'), 'ios'],
    ['a 403 for want of an agreement', 'apple_agreements_missing', withFields({ status: 403, code: 'FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED' }), 'ios'],
    ['a missing agreement, told', 'apple_agreements_missing', new Error('A required agreement is missing or has expired.'), 'ios', 'verifying-key'],
    ['a 429 of Apple\'s', 'apple_api_rate_limited', withFields({}, text, { cause: { status: 429 } }), 'ios'],
    ['too many certificates', 'cert_limit_reached', new CertificateLimitError(text), 'ios'],
    ['a profile', 'profile_creation_failed', withFields({ phase: 'profile' }), 'ios'],
    ['a key', 'p8_invalid', withFields({ phase: 'p8' }), 'ios'],
    ['a scan of the keychain', 'keychain_no_identities', new Error(text), 'ios', 'import-scanning'],
    ['an export of the keychain', 'keychain_export_failed', new Error(text), 'ios', 'import-exporting'],
    ['a profile to read', 'profile_read_failed', new Error(text), 'ios', 'import-provide-profile-path'],
    ['a profile to pick', 'profile_no_match', new Error(text), 'ios', 'import-pick-profile'],
    ['another step', 'unknown', new Error(text), 'ios', 'creating-certificate'],
    ['a step by an inherited name', 'unknown', new Error(text), 'ios', 'constructor'],
    ['a keystore', 'keystore_invalid', withFields({ phase: 'keystore' }), 'android'],
    ['a sign-in', 'google_oauth_failed', withFields({ phase: 'oauth' }), 'android'],
    ['scopes', 'google_oauth_failed', withFields({ name: 'MissingScopesError' }), 'android'],
    ['an account', 'play_account_id_invalid', withFields({ phase: 'play_account_id' }), 'android'],
    ['a service account\'s file', 'sa_json_shape_invalid', { kind: 'shape-error', message: text }, 'android'],
    ['a service account\'s token', 'sa_json_token_rejected', { kind: 'token-error', message: text }, 'android'],
    ['a service account without access', 'sa_json_no_app_access', { kind: 'no-app-access', message: text }, 'android'],
    ['a service account out of reach', 'sa_json_network_error', { kind: 'network-error', message: text }, 'android'],
    ['a 401 of anybody else\'s', 'unknown', withFields({ status: 401 }), 'android', 'import-scanning'],
    ['nothing', 'unknown', undefined, 'android'],
  ]
  test.each(errors)('is, of %s, %s', (_, category, error, platform, step) => {
    expect(onboardingErrorCategory(error, { platform, step })).toBe(category)
  })
})

describe('an AI analysis', () => {
  test.each([
    [new Response('text of the analysis'), 'success', undefined],
    [new Response(text, { status: 409 }), 'already_analyzed', 409],
    [{ status: 413, message: text }, 'too_big', 413],
    [withFields({ context: new Response(text, { status: 426 }) }), 'upgrade_required', 426],
    [withFields({ status: 502 }), 'error', 502],
    [withFields({ code: 'ECONNRESET' }), 'error', undefined],
    [withFields({ status: 42 }), 'error', undefined],
    [undefined, 'error', undefined],
  ])('is told from its answer: %#', (outcome, result, status) => {
    expect([analysisResult(outcome), analysisErrorStatus(outcome)]).toEqual([result, status])
  })
})

test('a mapper makes one of its own words of anything', () => {
  fc.assert(fc.property(fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true, withMap: true }), fc.string(), (anything, cause) => {
    for (const error of [anything, withFields({ errors: anything, code: cause }, text, { cause: anything }), { status: anything, cause }]) {
      expect(uploadFailureCategories).toContain(uploadFailureCategory(error))
      expect(commandErrorCategories).toContain(commandErrorCategory(error))
      expect(onboardingErrorCategories).toContain(onboardingErrorCategory(error, { platform: 'ios', step: cause }))
      expect(onboardingErrorCategories).toContain(onboardingErrorCategory(error, { platform: 'android' }))
      expect(analysisResults).toContain(analysisResult(error))
      expect([undefined, ...Array.from({ length: 200 }, (_, index) => 400 + index)]).toContain(analysisErrorStatus(error))
    }
  }))
})
