"""What joules come to in money and carbon: exact sums of stored energy times factors that somebody has named, nothing assumed.

    steps       a quantity that holds for a time, and then another
    prices      the price of a kWh, by weekday and hour or as it was on the market
    carbon      the carbon intensity of a grid: whose number, for which time, average or marginal
    remainder   what was drawn and no request bears, cut by time
    statement   energy, money and carbon of groups of requests, which add up to the whole
    sci         Software Carbon Intensity: grams for each token, image or second of video
    allocation  an hour's energy bill divided among who was served in it, to the last millionth
    focus       the columns of a FOCUS dataset, and one row for each part of a bill
"""
