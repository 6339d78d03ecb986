import { randomBytes } from 'node:crypto'

/** The demo world's people. */
export const people = {
  ada: '10000000-0000-4000-8000-000000000001',
  bob: '10000000-0000-4000-8000-000000000002',
  cyd: '10000000-0000-4000-8000-000000000003',
  eve: '10000000-0000-4000-8000-000000000004',
  nik: '10000000-0000-4000-8000-000000000005',
}

/** The demo world's organizations. */
export const orgs = {
  acme: 'a0000000-0000-4000-8000-000000000001',
  evil: 'a0000000-0000-4000-8000-000000000002',
  demo: '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11',
}

/** A new UUIDv7: the time in milliseconds, then random bits. */
export function uuidV7(at: number | Date = Date.now()): string {
  const random = randomBytes(10).toString('hex')
  const hex = `${Number(at).toString(16).padStart(12, '0')}7${random.slice(0, 3)}b${random.slice(4, 19)}`
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
