/** Words that are common as passwords, alone or with a suffix. Lower case. */
const words = `
  access account admin administrator adobe aaaaaa abc abcd abcdef abcdefg abcdefgh alexander alexis
  amanda america amanda andrea andrew angel angela angels animal anthony apple arsenal asdf asdfgh
  asdfghjk asdfghjkl ashley asshole august austin baby babygirl badboy bailey banana barcelona
  baseball basketball batman beautiful benjamin bigdaddy biteme blahblah blink bonjour booboo
  bradley brandon brandy brooklyn buster butterfly buttercup calvin camera canada captain carlos
  carolina caroline casper changeme charles charlie cheese chelsea chester chicago chicken chocolate
  chris christian christina cocacola coffee company computer cookie corvette cowboy cowboys crystal
  dallas daniel daniela danielle darkness database default demo diablo diamond diana dolphin
  dolphins donald dragon eagles eclipse edward einstein elephant elizabeth eminem emily england
  enter esther estrella evelyn everton f00tball falcon family fantasy federico fender ferrari
  finance fishing flower flowers football forever france franklin freedom friday friend friends
  gabriel gandalf garfield genesis george ginger girlfriend godzilla golden golfer google gordon
  guest guitar hahaha hamster hannah happy happyday harley harrypotter heather hello hellokitty
  helloworld herald hockey hotmail hunter iceman iloveu iloveyou inter internet isabella jackson
  jaguar jasmine jasper jennifer jeremy jessica jesus johnny jonathan jordan joseph joshua juliana
  junior justin justice killer kimberly kitty knight lakers lauren legend leonardo letmein liberty
  lifehack linkedin liverpool login london looking love lovely loveme lover lucky madison maggie
  manager manchester marina marlboro martin master matrix matthew maverick maxwell melissa mercedes
  merlin metallica michael michelle mickey midnight miguel minecraft monday money monica monkey
  monster morgan mother motorola mustang mypassword naruto nathan naughty newyork nicholas nicole
  nintendo nirvana nothing november october office oliver orange p@ssw0rd p@ssword pa55w0rd
  pa55word pakistan panther pass passpass passphrase passw0rd password patricia patrick peaches
  peanut pepper personal phoenix player please pokemon police popcorn portugal prince princess
  private purple pussy q1w2e3 q1w2e3r4 q1w2e3r4t5 qazwsx qazwsxedc qwer qwert qwerty qwertyu
  qwertyui qwertyuiop qwertz qwertzuiop rachel raiders rainbow ranger rebecca richard robert
  rockstar rockyou ronaldo root rosebud runner samantha samsung samurai sandra saturday scooter
  scorpion secret secure security september server service shadow shannon silver skywalker slipknot
  smokey snoopy snowball soccer sophie spencer spider spiderman spring startrek starwars stella
  steven strawberry success summer sunday sunflower sunshine superman superstar support sweetheart
  sweetie swordfish sydney system taylor teacher temp temporary tennis teresa test tester testing
  theman thomas thunder tigger tinkerbell toyota travis trustno1 tuesday twilight unknown user
  username valentina vanessa victor victoria viking vincent warcraft warrior webmaster website
  welcome whatever whiskey william willow wilson windows winner winter wizard wolverine xxxxxx
  yankees yellow zaq12wsx zxcvb zxcvbn zxcvbnm
`;

const endings = ['1', '12', '123', '1234', '12345', '123456', '!', '1!', '12!', '123!', '@123'];
const years = ['2020', '2021', '2022', '2023', '2024', '2025', '2026', '2027'];

/** Keyboard patterns and other common passwords. Lower case. */
const others = `
  000000 0000000 00000000 0000000000 010101 01234567 0123456789 101010 102030 111111 1111111
  11111111 111111111 1111111111 111222 112233 11223344 1122334455 121212 12121212 123123 12312312
  123123123 123321 12332100 123454321 123456 1234567 12345678 123456789 1234567890 12345678910
  123456789a 123456789q 12345678a 1234567a 123456a 123456b 123456q 1234abcd 1234qwer 123654
  123654789 123789 123abc 123abc123 123qwe 123qwe123 123qweasd 123qweasdzxc 12qwaszx 131313 142536
  147147 147258 147258369 147852 147852369 159159 159357 159753 1a2b3c 1a2b3c4d 1g2w3e4r 1q2w3e
  1q2w3e4r 1q2w3e4r5t 1q2w3e4r5t6y 1qa2ws3ed 1qaz1qaz 1qaz2wsx 1qaz2wsx3edc 1qazxsw2 1qw23er4
  212121 22222222 222222 232323 2wsx3edc 31415926 321321 33333333 333333 44444444 444444 456123
  456456 456789 55555555 555555 5201314 654321 66666666 666666 696969 741852 741852963 753951
  77777777 777777 7777777 789456 789456123 87654321 88888888 888888 987654 9876543 98765432
  987654321 9876543210 99999999 999999 999999999 a1234567 a12345678 a123456 a1b2c3 a1b2c3d4
  aa123456 aa12345678 aaaaaaaa abc123456 abcd1234 abcdefgh1 access14 access99 admin@123 adminadmin
  asdasd asdasdasd asdf1234 asdfasdf asdfjkl; asd123 azertyuiop azerty baseball1 blink182
  correcthorsebatterystaple dearbook deadbeef football1 fuckyou fuckyou1 fuckme g_czechout
  iloveyou2 iloveyou! jordan23 letmein! letmeinnow michael1 monkey123 mynoob ncc1701 ncc1701d
  password01 password99 passwordpassword pa$$word p@$$w0rd p@ssw0rd! qazxsw qazxswedc qqqqqqqq
  qqww1122 qwe123 qwe123qwe qweasd qweasd123 qweasdzxc qweqwe qweqweqwe qwer1234 qwerasdf
  qwerqwer qwerty123456 qwertyqwerty rootroot secret123 sha256 test1234 testtest thx1138 toor
  toortoor trustno1! w1234567 welcome@123 whatsup x1x2x3x4 xxxxxxxx zaq1xsw2 zaq1zaq1 zaq12wsx
  zxcv1234 zxcvzxcv zzzzzzzz
`;

/** About 8,200 passwords that attackers guess first, in lower case. Collected for Herald. */
export const commonPasswords: ReadonlySet<string> = new Set([
  ...splitWords(words).flatMap((word) => [
    word,
    ...[...endings, ...years].map((ending) => word + ending),
  ]),
  ...splitWords(others),
]);

function splitWords(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}
