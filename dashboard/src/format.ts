// How numbers, times and names are written. Times are UTC's, as all of the database's answers are.

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const numberFormat = new Intl.NumberFormat('en')

export const count = (value: number): string => numberFormat.format(value)
export const percent = (share: number): string => `${(100 * share).toFixed(1).replace(/\.0$/, '')}%`

const iso = (time: string): string => new Date(time).toISOString()
const monthOf = (time: string): string => months[new Date(time).getUTCMonth()] ?? ''
/** "28 Nov". */
export const shortDate = (time: string): string => `${new Date(time).getUTCDate()} ${monthOf(time)}`
/** "28 Nov 2026". */
export const date = (time: string): string => `${shortDate(time)} ${new Date(time).getUTCFullYear()}`
/** "Saturday, 28 Nov 2026". */
export const weekday = (time: string): string => `${days[new Date(time).getUTCDay()]}, ${date(time)}`
/** "14:21:28". */
export const timeOfDay = (time: string): string => iso(time).slice(11, 19)
/** "28 Nov 2026, 14:21". */
export const dateAndTime = (time: string): string => `${date(time)}, ${iso(time).slice(11, 16)}`

/** "1 person", "2,304 people". */
export const many = (value: number, one: string, more = `${one}s`): string => `${count(value)} ${value === 1 ? one : more}`

/** The name of a period by its first moment. */
export function periodName(time: string, period: string): string {
  if (period === 'hour') return `${shortDate(time)}, ${iso(time).slice(11, 16)}`
  if (period === 'week') return `Week of ${date(time)}`
  return period === 'month' ? `${monthOf(time)} ${new Date(time).getUTCFullYear()}` : date(time)
}

/** A span of time in its two largest units, in one line: "44 s", "2 h 58 min". */
export function duration(seconds: number): string {
  const units: [string, number][] = [['d', 86_400], ['h', 3600], ['min', 60], ['s', 1]]
  const whole = seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)
  const first = units.findIndex(([, size]) => whole >= size)
  if (first < 0 || first === units.length - 1) return `${whole}\u00a0s`
  const [[unit, size] = ['', 1], [lesser, lesserSize] = ['', 1]] = units.slice(first)
  const lessers = Math.round(whole / lesserSize)
  const [larger, rest] = [Math.floor(lessers * lesserSize / size), lessers % (size / lesserSize)]
  return `${larger}\u00a0${unit}${rest ? `\u00a0${rest}\u00a0${lesser}` : ''}`
}

/** How long ago: "just now", "5 min ago", "3 days ago". */
export function ago(time: string, now = Date.now()): string {
  const minutes = Math.floor((now - Date.parse(time)) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`
  return `${many(Math.floor(minutes / 1440), 'day')} ago`
}

/** A part of an id that tells it from others. */
export const shortId = (id: string): string => `${id.slice(0, 8)}…${id.slice(-4)}`
