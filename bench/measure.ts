import type { Ring } from './ring.ts'

/** One way to do the work. */
export type Contender = {
  readonly name: string
  /** Does a fixed amount of work and answers with how much was done a second, or how long it took. */
  run(): Promise<number>
}

/** Ways to do the same work, the first of which is what the others are compared with. */
export type Contest = {
  readonly name: string
  readonly unit: string
  readonly contenders: readonly Contender[]
  /** Measured with `synchronous_commit` on, and not with it off as well. */
  readonly isDurable?: boolean
  /** The ratios are those of the first contender to each, and not of each to the first. */
  readonly isLed?: boolean
  /** The figures are times, and a contender that has taken long need not go on for all of the rounds. */
  readonly isTimed?: boolean
}

export type Result = {
  readonly name: string
  readonly median: number
  readonly low: number
  readonly high: number
  /** The median, and the spread, of each round's ratio to the first contender of that round; or of that one to it. */
  readonly ratio: number
  readonly lowRatio: number
  readonly highRatio: number
}

export type Measurement = {
  readonly contest: string
  readonly unit: string
  readonly durable: boolean
  readonly isLed: boolean
  readonly isTimed: boolean
  readonly results: readonly Result[]
}

type Terms = { rounds: number, durable: boolean, ring: Ring }

// Of contests that are timed: so many rounds are enough where they have taken so many milliseconds.
const [enough, patience] = [3, 90_000]

/** Lets the contenders take turns, A B C C B A A B C …, after one round that does not count. */
export async function measure(contest: Contest, { rounds, durable, ring }: Terms): Promise<Measurement> {
  await ring.setDurable(durable)
  const figures: number[][] = contest.contenders.map(() => [])
  const startedAt = performance.now()
  for (let round = -1; round < rounds; round++) {
    if (contest.isTimed && round >= enough && performance.now() - startedAt > patience) break
    const turns = [...contest.contenders.entries()]
    // There and back, so that nobody always comes behind the same one, whose dust may not have settled yet.
    for (const [index, contender] of round % 2 === 0 ? turns : turns.toReversed()) {
      const figure = await contender.run()
      if (round >= 0) figures[index]?.push(figure)
    }
  }
  const { isLed = false, isTimed = false } = contest
  const results = contest.contenders.map(({ name }, index) => summarise(name, figures[index]!, figures[0]!, isLed))
  return { contest: contest.name, unit: contest.unit, durable, isLed, isTimed, results }
}

function summarise(name: string, own: number[], firsts: number[], isLed: boolean): Result {
  const ratios = own.map((figure, round) => isLed ? firsts[round]! / figure : figure / firsts[round]!)
  return {
    name, median: median(own), low: Math.min(...own), high: Math.max(...own),
    ratio: median(ratios), lowRatio: Math.min(...ratios), highRatio: Math.max(...ratios),
  }
}

function median(figures: readonly number[]): number {
  const sorted = figures.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
