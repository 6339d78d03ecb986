import fc from 'fast-check'

// JSON as text, since much of what must be survived cannot be written as a JavaScript value: names that occur
// twice, __proto__, numbers of any size, and nesting without end.

const fields = ['event', 'channel', 'description', 'icon', 'parser', 'notify', 'tags', 'nonPersonTags', 'org_id', 'user_id',
  'tracking_version', 'timestamp', 'event_id', 'sent_at', 'notifyConsole']
const tagNames = ['app_id', 'app-id', 'org_id', 'channel', 'bundle']
const pollution = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'then', 'length', '']

/** Any UTF-16 at all, now and then what no JSON in Postgres may hold: NUL bytes and lone surrogates. */
const anyText = fc.oneof(
  { weight: 6, arbitrary: fc.string({ unit: 'grapheme' }) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary' }) },
  { weight: 1, arbitrary: fc.array(fc.nat(0xffff), { maxLength: 10 }).map((units) => String.fromCharCode(...units)) },
  { weight: 1, arbitrary: fc.constantFrom('\0', 'a\0b', '\ud800', '\udc00\ud800') },
  { weight: 3, arbitrary: fc.constantFrom('\u200b', '\ufeff', '\u00a0', '\t\n', '%s%n', "'; drop table events; --", '${x}', '\\u0000') })

const jsonText = (text: fc.Arbitrary<string>): fc.Arbitrary<string> => text.map((value) => JSON.stringify(value))

const number = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
  fc.constantFrom('0', '-0', '1', '2', '1.0', '2e0', '1e400', '-1e400', '1e-400', '1e131071', '1e999999',
    '123456789012345678901234567890.123456789', '9223372036854775808'))

const name = fc.oneof(
  fc.constantFrom(...fields), fc.constantFrom(...tagNames), fc.constantFrom(...pollution), anyText)

const objectOf = (members: fc.Arbitrary<[string, string][]>): fc.Arbitrary<string> => members.map((pairs) => (
  `{${pairs.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(',')}}`))

/** Any JSON. */
export const anyJson: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom('null', 'true', 'false'),
    number,
    jsonText(anyText),
    fc.array(tie('value'), { maxLength: 5 }).map((values) => `[${values.join(',')}]`),
    objectOf(fc.array(fc.tuple(name, tie('value')), { maxLength: 5 })),
  ),
})).value

/** JSON that is nested deeply, or large. 60,000 levels are more than Postgres reads; 5,000 it must bear. */
const extremeJson = fc.oneof(
  fc.tuple(fc.constantFrom(50, 500, 5_000, 60_000), fc.constantFrom(['[', ']'], ['{"a":', '}'], ['[{"tags":', '}]']))
    .map(([depth, [open, close]]) => `${open!.repeat(depth)}1${close!.repeat(depth)}`),
  fc.constantFrom(201, 4_001, 32_769, 400_000).map((length) => JSON.stringify('x'.repeat(length))),
  fc.constantFrom(100, 3_000).map((count) => `{${Array.from({ length: count }, (_, n) => `"key ${n}":${n}`).join(',')}}`),
  fc.constantFrom(100, 40_000).map((count) => `[${Array(count).fill('0').join(',')}]`),
)

const soundText = fc.oneof(
  { weight: 6, arbitrary: fc.string({ unit: 'grapheme', minLength: 1 }) },
  { weight: 1, arbitrary: anyText })
const orgIds = fc.constantFrom('a0000000-0000-4000-8000-000000000001', 'A0000000-0000-4000-8000-000000000001',
  'a0000000-0000-4000-8000-000000000002', '00000000-0000-0000-0000-000000000000', '10000000-0000-4000-8000-000000000001', 'no uuid', '')
const past = fc.date({ min: new Date(0), max: new Date('2026-01-01'), noInvalidDate: true })
const times = fc.oneof(
  { weight: 6, arbitrary: past.map((date) => date.toISOString()) },
  { weight: 1, arbitrary: fc.date({ noInvalidDate: true }).map((date) => date.toISOString()) },
  { weight: 1, arbitrary: fc.constantFrom('2026-02-29T00:00:00Z', '2025-11-05', 'infinity', 'now',
    '9999-12-31T23:59:59.999999999-14:00', '0000-01-01', '1969-12-31T23:59:59.9999Z') })
const ids = fc.oneof(
  fc.tuple(past, fc.uuid({ version: 7 })).map(([date, uuid]) => (
    date.getTime().toString(16).padStart(12, '0').replace(/^(.{8})/, '$1-') + uuid.slice(13))),
  fc.uuid(), fc.constantFrom('order-1', ''), anyText)

// What each field is made for, so that many payloads get past the first checks.
const sound: Record<string, fc.Arbitrary<string>> = {
  event: jsonText(fc.oneof({ weight: 8, arbitrary: soundText }, { weight: 1, arbitrary: fc.constantFrom(' ', '') })),
  channel: jsonText(soundText),
  description: jsonText(soundText),
  icon: jsonText(soundText),
  parser: jsonText(soundText),
  notify: fc.constantFrom('true', 'false'),
  tags: objectOf(fc.array(fc.oneof(
    fc.tuple(fc.constantFrom('app_id', 'app-id'), fc.constantFrom('"com.acme.app"', '"com.evil.app"', '"nobody.knows"', '""', 'null')),
    fc.tuple(fc.constant('org_id'), jsonText(orgIds)),
    fc.tuple(name, anyJson)), { maxLength: 4 })),
  nonPersonTags: objectOf(fc.array(fc.tuple(name, anyJson), { maxLength: 4 })),
  org_id: jsonText(orgIds),
  user_id: jsonText(orgIds),
  tracking_version: fc.constantFrom('1', '2', '2', '"2"', '3'),
  timestamp: jsonText(times),
  event_id: jsonText(ids),
  sent_at: jsonText(times),
  notifyConsole: fc.constantFrom('true', 'false'),
}

const member = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom(...fields.slice(1)).chain((field) => fc.tuple(fc.constant(field), sound[field]!)) },
  { weight: 2, arbitrary: fc.tuple(fc.constantFrom(...fields), anyJson) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom(...fields), extremeJson) },
  { weight: 1, arbitrary: fc.tuple(name, anyJson) })

const anyObject = fc.tuple(sound.event!, fc.array(member, { maxLength: 5 })).map(
  ([event, members]): [string, string][] => [['event', event], ...members])

/** A payload of `track_event` that may be sound, wrong in any field, or no payload at all. */
export const anyPayload: fc.Arbitrary<string> = fc.oneof(
  { weight: 12, arbitrary: objectOf(anyObject) },
  { weight: 2, arbitrary: anyJson },
  { weight: 1, arbitrary: extremeJson })

/** For every field a payload with a value of every type. */
export const everyFieldOfEveryType: string[] = fields.flatMap((field) => (
  ['null', 'true', '1', '-1.5', '1e400', '""', '"x"', '"\\u0000"', '[]', '[["x"]]', '{}', '{"x":1}'].map((value) => (
    `{"event":"Typed","${field}":${value}}`))))
