import { expect, test } from 'vitest'
import { prove, type Proof } from './proving.ts'

// `npm run proof` runs it in full: 100,000 events, each of three workers killed 20 times and Postgres 5 times.
const events = 1500

test('whatever fails, and whoever is killed, every sink gets every event, in the order of its org, and a replay is the same again', async () => {
  const proof = await prove({ events, faults: 0.3, workers: 3, kills: { worker: 2, postgres: 1 } })
  expect(proof.kills).toEqual({ worker: [2, 2, 2], postgres: 1 })
  expect(proof.gaps).toBe(0)
  expect(proof.errors).toEqual([])
  for (const [sink, own] of Object.entries(proof.sinks)) expectSound(sink, own)
}, 600_000)

function expectSound(sink: string, proof: Proof['sinks'][string]): void {
  const { delivered, filtered, undelivered, received, replayed, deliveredInReplay } = proof
  expect({ sink, ...proof }).toMatchObject({
    events, pending: 0, missing: 0, unasked: 0, outOfOrder: 0, changed: 0, changedInReplay: 0 })
  // Bento takes the good ones of a batch with a bad one, and does not say which that is: they are sent again.
  if (sink !== 'bento') expect(proof.replayedTwice).toBe(0)
  expect(delivered + filtered + undelivered).toBe(events)
  expect([received, replayed, deliveredInReplay]).toEqual([delivered, delivered, delivered])
  // Poison is the only breach; whoever asks for another path has not noticed that the port was theirs once.
  expect(proof.breaches.filter((breach) => !/poison|could not be processed|not found/i.test(breach))).toEqual([])
}
